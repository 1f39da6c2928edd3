//! The shells that talk: to peers over mutual TLS, and to this company's own programs.

pub mod tls;
