//! A compiler of proto files, so that authors of adapters need no protoc: the one that our own files are compiled with.

use std::collections::HashMap;
use std::path::PathBuf;

use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Files by the names that imports call them.
struct Given(HashMap<String, String>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// A FileDescriptorSet of `root` and all its imports, dependencies first. They are looked for in `files`, then in the
/// folders `includes`; Google's own are always there.
#[pyfunction]
pub(crate) fn compile_protos<'py>(
    py: Python<'py>,
    root: &str,
    files: HashMap<String, String>,
    includes: Vec<PathBuf>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Given(files));
    for folder in includes {
        resolver.add(IncludeFileResolver::new(folder));
    }
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    match compiler.open_file(root) {
        Ok(compiler) => Ok(PyBytes::new(py, &compiler.encode_file_descriptor_set())),
        // Its long form names file, line and column.
        Err(error) => Err(PyValueError::new_err(format!("{error:?}"))),
    }
}
