//! Placeholder: the crate page comes with the connection.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod handshake;
