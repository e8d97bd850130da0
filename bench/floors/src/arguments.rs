//! `--name value` pairs, which is all these programs need.

use std::collections::HashMap;

/// The command line as a table; ends the process with a line on anything else.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    /// Read the process's own command line.
    pub fn read() -> Self {
        let mut table = HashMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match (word.strip_prefix("--"), words.next()) {
                (Some(name), Some(value)) => table.insert(name.to_owned(), value),
                _ => fail(&format!("expected --name value, got {word}")),
            };
        }
        Self(table)
    }

    /// A value that must be there.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| fail(&format!("--{name} is missing")))
    }

    /// A value that may be there.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number with a default.
    pub fn number(&self, name: &str, default: usize) -> usize {
        self.find(name).map_or(default, |text| {
            text.parse()
                .unwrap_or_else(|_| fail(&format!("--{name}: {text} is no number")))
        })
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(64)
}
