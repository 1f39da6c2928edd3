//! `hash`: the hashes of files, computed here. Nothing is sent.

use clap::Args;

use super::failure::{Exit, Failure, Outcome};
use super::item::{Item, of_file};
use super::{Invocation, json};

#[derive(Args)]
pub(super) struct HashArgs {
    /// Files of any kind; of JPEG, PNG, WebP, GIF and BMP also the picture is hashed, and of videos their frames, if the
    /// program ffmpeg is here
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

pub(super) fn hash(args: &HashArgs, at: &Invocation) -> Outcome {
    for file in &args.files {
        let item = Item::of_file(file.as_ref())?;
        if at.terminal.json {
            item.tell_of_video(at);
            at.terminal.json(&as_json(file, &item))?;
        } else {
            print(file, &item, at)?;
        }
    }
    Ok(Exit::Ok)
}

fn print(file: &str, item: &Item, at: &Invocation) -> Result<(), Failure> {
    item.tell_of_video(at);
    for hash in item.hashes() {
        let note = match hash.quality {
            Some(quality) if hash.is_poor() => format!("  quality {quality}: too little in the picture to be listed"),
            Some(quality) => format!("  quality {quality}"),
            None => String::new(),
        };
        at.terminal.data(format!("{}  {file}{note}", hash.short()))?;
    }
    Ok(())
}

fn as_json(file: &str, item: &Item) -> json::Hashed {
    let Item::File(_, hashes) = item else {
        return json::Hashed { file: file.to_owned(), length: 0, hashes: Vec::new() };
    };
    let signal =
        |hash: super::item::Hash| json::Signal { r#type: hash.type_name, value: hash.value, quality: hash.quality };
    json::Hashed {
        file: file.to_owned(),
        length: hashes.digests.length,
        hashes: of_file(hashes).into_iter().map(signal).collect(),
    }
}
