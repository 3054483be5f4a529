//! Decides which files a configuration is made of, and reads them as text.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Place, Source};
use super::files_read::FilesRead;
use super::interpolate::why;

/// More than 200,000 routes take.
const LARGEST_FILE: u64 = 64 << 20;

/// The files that are read for a path, sorted by name.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Vec<Diagnostic>> {
    let unreadable =
        |error: std::io::Error| vec![Diagnostic::nowhere("unreadable", format!("`{}` cannot be read: {}", path.display(), why(&error)))];
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || file.is_dir() {
            continue;
        }
        if name.ends_with(".yaml") {
            found.push(file);
        } else if name.ends_with(".yml") {
            errors.push(
                Diagnostic::nowhere("not-read", format!("`{}` would not be read: of a folder, only `*.yaml` is", file.display()))
                    .help("rename it to `.yaml`, or move it away"),
            );
        }
    }
    if found.is_empty() && errors.is_empty() {
        errors.push(Diagnostic::nowhere("unreadable", format!("the folder `{}` holds no `*.yaml`", path.display())));
    }
    found.sort();
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// What a file holds, as text. It is noted.
pub(super) fn text(path: &Path, files: &FilesRead) -> Result<Source, Box<Diagnostic>> {
    let mut bytes = Vec::new();
    let unreadable = |why: String| Box::new(Diagnostic::nowhere("unreadable", format!("`{}` {why}", path.display())));
    let noted = files.note(path).and_then(|_| std::fs::File::open(path));
    noted
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(format!("cannot be read: {}", why(&error))))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(unreadable("is larger than 64MiB".to_owned()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(path, text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)).noting(files)),
        Err(error) => {
            let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let line = good.lines().count().max(1) + usize::from(good.ends_with('\n'));
            let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let source = Arc::new(Source::new(path, String::from_utf8_lossy(error.as_bytes())));
            let place = Place { source, line: number(line), column: number(column), width: 1 };
            Err(Box::new(Diagnostic::at(&place, "not-utf8", "this is not UTF-8 text").help("save the file as UTF-8")))
        }
    }
}
