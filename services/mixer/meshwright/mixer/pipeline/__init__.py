"""What Python does on a record's way: its adapters' part of each batch. The rest is Rust (crate `reports`)."""
