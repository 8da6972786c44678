//! The files of the demonstrations and of the console, compiled into the program.

/// A file of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
    /// Whether the path contains the version of the file, so that browsers may keep it.
    pub(crate) is_versioned: bool,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Returns the file of a path.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    let (content_type, body) = match path {
        "/" => (HTML, include_str!("page/home/home.html")),
        "/home.css" => (CSS, include_str!("page/home/home.css")),
        "/home.js" => (SCRIPT, include_str!("page/home/home.js")),
        "/chat" => (HTML, include_str!("page/chat/chat.html")),
        "/chat.css" => (CSS, include_str!("page/chat/chat.css")),
        "/chat.js" => (SCRIPT, include_str!("page/chat/chat.js")),
        "/view.js" => (SCRIPT, include_str!("page/chat/view.js")),
        "/market" => (HTML, include_str!("page/market/market.html")),
        "/market.css" => (CSS, include_str!("page/market/market.css")),
        "/market.js" => (SCRIPT, include_str!("page/market/market.js")),
        "/game" => (HTML, include_str!("page/game/game.html")),
        "/game.css" => (CSS, include_str!("page/game/game.css")),
        "/game.js" => (SCRIPT, include_str!("page/game/game.js")),
        "/pond.js" => (SCRIPT, include_str!("page/game/pond.js")),
        "/netcode.js" => (SCRIPT, include_str!("page/game/netcode.js")),
        "/physics.js" => (SCRIPT, include_str!("page/game/physics.js")),
        "/wire.js" => (SCRIPT, include_str!("page/game/wire.js")),
        "/base.css" => (CSS, include_str!("page/base.css")),
        "/snippets.js" => (SCRIPT, include_str!("page/snippets.js")),
        "/connection.js" => (SCRIPT, include_str!("page/connection.js")),
        "/favicon.svg" => ("image/svg+xml", include_str!("page/favicon.svg")),
        _ => return vendored(path),
    };
    Some(Asset {
        content_type,
        body,
        is_versioned: false,
    })
}

/// Returns a file of the console, by the part of its path after `/console`.
pub(crate) fn console_asset(path: &str) -> Option<Asset> {
    let (content_type, body) = match path {
        "" | "/" => (HTML, include_str!("page/console/console.html")),
        "/console.css" => (CSS, include_str!("page/console/console.css")),
        "/console.js" => (SCRIPT, include_str!("page/console/console.js")),
        "/charts.js" => (SCRIPT, include_str!("page/console/charts.js")),
        "/channel.js" => (SCRIPT, include_str!("page/console/channel.js")),
        "/server.js" => (SCRIPT, include_str!("page/console/server.js")),
        "/base.css" => (CSS, include_str!("page/base.css")),
        "/favicon.svg" => ("image/svg+xml", include_str!("page/favicon.svg")),
        "/vendor/uplot-1.6.32.js" => (SCRIPT, include_str!("page/vendor/uplot-1.6.32.js")),
        "/vendor/uplot-1.6.32.css" => (CSS, include_str!("page/vendor/uplot-1.6.32.css")),
        "/vendor/uplot.LICENSE" => ("text/plain; charset=utf-8", include_str!("page/vendor/uplot.LICENSE")),
        _ => return None,
    };
    Some(Asset {
        content_type,
        body,
        is_versioned: path.starts_with("/vendor/uplot-"),
    })
}

/// Returns a file of `vendor/`, whose README names the origin and licence of each.
fn vendored(path: &str) -> Option<Asset> {
    let body = match path {
        "/vendor/centrifuge-5.8.0.js" => include_str!("page/vendor/centrifuge-5.8.0.js"),
        "/vendor/centrifuge.protobuf-5.8.0.js" => include_str!("page/vendor/centrifuge.protobuf-5.8.0.js"),
        "/vendor/lightweight-charts-5.2.1.js" => include_str!("page/vendor/lightweight-charts-5.2.1.js"),
        "/vendor/centrifuge.LICENSE" | "/vendor/lightweight-charts.LICENSE" => return licence(path),
        _ => return None,
    };
    Some(Asset {
        content_type: SCRIPT,
        body,
        is_versioned: true,
    })
}

fn licence(path: &str) -> Option<Asset> {
    let body = match path {
        "/vendor/centrifuge.LICENSE" => include_str!("page/vendor/centrifuge.LICENSE"),
        _ => include_str!("page/vendor/lightweight-charts.LICENSE"),
    };
    Some(Asset {
        content_type: "text/plain; charset=utf-8",
        body,
        is_versioned: false,
    })
}
