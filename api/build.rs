//! The web page is built by Vite. Without it the crate builds all the same, and the first page says what to do.

use std::fs;

fn main() {
    println!("cargo:rerun-if-changed=../web/dist");
    fs::create_dir_all("../web/dist").expect("the folder of the built page can be made in the source tree");
}
