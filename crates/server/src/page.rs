//! The files of the demo chat page, compiled into the program.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
}

/// Returns the file of a path.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    let (content_type, body) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/chat.css" => ("text/css; charset=utf-8", include_str!("page/chat.css")),
        "/chat.js" => ("text/javascript; charset=utf-8", include_str!("page/chat.js")),
        "/view.js" => ("text/javascript; charset=utf-8", include_str!("page/view.js")),
        "/protocol.js" => ("text/javascript; charset=utf-8", include_str!("page/protocol.js")),
        "/favicon.svg" => ("image/svg+xml", include_str!("page/favicon.svg")),
        _ => return None,
    };
    Some(Asset { content_type, body })
}
