//! The binary's insides: the command line, and the server it talks to.

pub mod cli;
pub mod exit;
pub mod paths;
