//! Keys and certificates that change and end while nodes run.
