//! A page whose program is the crate `sockeye` in the browser. `tests/peers/wasm_client.mjs` runs its cases.

mod cases;
mod greet;

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &str);

    fn fetch(path: &str) -> js_sys::Promise;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, millis: u32);
}

/// Shows panics in the console.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
}

/// The names of all cases.
#[wasm_bindgen]
pub fn cases() -> Vec<String> {
    cases::NAMES.iter().map(|&name| name.to_owned()).collect()
}

/// Runs a case against the server at `base`, such as `ws://127.0.0.1:4711`.
///
/// # Errors
///
/// Why the case failed.
#[wasm_bindgen]
pub async fn run(name: String, base: String) -> Result<(), String> {
    cases::run(&name, &base).await.map_err(|error| error.to_string())
}
