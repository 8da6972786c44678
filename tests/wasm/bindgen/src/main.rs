//! `bindgen MODULE.wasm FOLDER`: writes the JavaScript module that loads a module for wasm32, as the program of the
//! same name does.

use std::env;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [module, folder] = &arguments[..] else {
        return Err("usage: bindgen MODULE.wasm FOLDER".into());
    };
    Bindgen::new()
        .input_path(module)
        .web(true)?
        .typescript(false)
        .generate(folder)
        .map_err(|error| format!("{error:#}").into())
}
