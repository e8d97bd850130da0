use std::fs;
use std::path::PathBuf;

use meshwright_api::meshwright::policy::v1::handler::stdio::Stream;

use super::line;
use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("meshwright-stdio-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder of our own");
    folder
}

fn handler(path: PathBuf, rotate_bytes: u64, keep_files: u32) -> Stdio {
    Stdio::new(&Parameters {
        stream: Stream::RotatedFile.into(),
        path: path.to_str().expect("a plain name").to_owned(),
        rotate_bytes,
        keep_files,
        ..Default::default()
    })
}

#[test]
fn a_large_file_is_renamed_and_the_oldest_removed() {
    let folder = folder("rotation");
    let handler = handler(folder.join("access.log"), 10, 2);
    for line in ["one two\n", "three four\n", "five six\n", "seven eight\n"] {
        handler.write(line.as_bytes()).expect("room on the disk");
    }
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a plain name")
        })
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(
        fs::read_to_string(folder.join(&names[0])).expect("the older"),
        "three four\n"
    );
    assert_eq!(
        fs::read_to_string(folder.join(&names[1])).expect("the younger"),
        "five six\n"
    );
    assert_eq!(names[2], "access.log");
    fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn a_file_that_is_away_is_made_anew_and_a_link_is_refused() {
    let folder = folder("away");
    let path = folder.join("access.log");
    let handler = handler(path.clone(), 0, 0);
    handler.write(b"one\n").expect("room on the disk");
    fs::rename(&path, folder.join("taken")).expect("ours");
    handler.write(b"two\n").expect("room on the disk");
    assert_eq!(fs::read_to_string(&path).expect("the new one"), "two\n");
    fs::remove_file(&path).expect("ours");
    std::os::unix::fs::symlink(folder.join("elsewhere"), &path).expect("a link");
    let error = handler.write(b"three\n").expect_err("a link").to_string();
    assert!(error.contains("access.log"), "{error}");
    fs::remove_dir_all(&folder).expect("ours");
    handler.write(b"four\n").expect_err("no folder");
    fs::create_dir_all(&folder).expect("ours");
    handler.write(b"four\n").expect("it is there again");
    fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (days, expected) in [
        (0, (1970, 1, 1)),
        (-1, (1969, 12, 31)),
        (11_016, (2000, 2, 29)),
        (20_778, (2026, 11, 21)),
    ] {
        assert_eq!(line::date(days), expected);
    }
}
