//! `packaging/container/Containerfile`, as far as a runtime needs to know it.

use std::path::PathBuf;

use crate::manifest;

const FILE: &str = "packaging/container/Containerfile";

/// What the image is.
pub(crate) struct Image {
    /// Where the binary is in it.
    pub(crate) binary: PathBuf,
    /// What is run, before the arguments.
    pub(crate) entrypoint: Vec<String>,
}

impl Image {
    pub(crate) fn read() -> Self {
        let mut binary = None;
        let mut entrypoint = None;
        for (word, rest) in instructions() {
            match word.as_str() {
                "COPY" => {
                    let to = rest.split_whitespace().next_back().expect("a destination").to_owned();
                    if to.ends_with("/lockprof") {
                        binary = Some(PathBuf::from(to));
                    }
                }
                "ENTRYPOINT" => entrypoint = Some(serde_json::from_str(&rest).expect("JSON")),
                _ => {}
            }
        }
        Self { binary: binary.expect("a binary"), entrypoint: entrypoint.expect("an entry point") }
    }
}

/// Words and what follows them, continued lines as one.
fn instructions() -> Vec<(String, String)> {
    let text = manifest::read(FILE);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let split = |line: &str| {
        let (word, rest) = line.split_once(' ')?;
        Some((word.to_owned(), rest.trim().to_owned()))
    };
    joined.lines().filter_map(split).collect()
}

#[test]
fn the_image_is_one_binary_and_runs_it() {
    let image = Image::read();
    assert_eq!(image.entrypoint, [image.binary.to_str().expect("a path")]);
    let from: Vec<_> = instructions().into_iter().filter(|(word, _)| word == "FROM").collect();
    assert_eq!(from, [("FROM".to_owned(), "scratch".to_owned())]);
    // Paths of the package, relative to the folder of its tarball.
    for (_, rest) in instructions().into_iter().filter(|(word, _)| word == "COPY") {
        let (from, to) = rest.split_once(' ').expect("two paths");
        assert_eq!(format!("/{from}"), to);
    }
}
