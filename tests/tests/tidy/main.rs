//! Rules about the workspace itself: which way dependencies point, what the pure core may know, what drivers must not
//! decide, how long files and functions are, and that the documents name things that exist. Each failure says what to do.

mod dependencies;
mod documents;
mod ownership;
mod shape;
mod workspace;
