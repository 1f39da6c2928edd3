//! `hash`: the hashes of files and web addresses, computed here. Nothing is sent.

use clap::Args;

use super::Invocation;
use super::failure::{Exit, Failure, Outcome};
use super::item::Item;
use crate::answers;
use crate::hashing::Document;
use crate::replica::signal::is_web_address;

#[derive(Args)]
pub(super) struct HashArgs {
    /// Files of any kind; of JPEG, PNG, WebP, GIF and BMP also the picture is hashed, of videos their frames, if the program
    /// ffmpeg is here, of others the document; or pages as in https://...
    #[arg(required = true, value_name = "FILE|URL")]
    files: Vec<String>,
}

pub(super) fn hash(args: &HashArgs, at: &Invocation) -> Outcome {
    for file in &args.files {
        let item = if is_web_address(file) { Item::read(file)? } else { Item::of_file(file.as_ref())? };
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
    if let Item::File(_, hashes) = item
        && let Some(why) = hashes.document.as_ref().and_then(Document::why_none)
    {
        at.terminal.talk(format!("{file}: {why}"));
    }
    Ok(())
}

fn as_json(file: &str, item: &Item) -> answers::Hashed {
    let signal =
        |hash: super::item::Hash| answers::Signal { r#type: hash.type_name, value: hash.value, quality: hash.quality };
    answers::Hashed {
        file: file.to_owned(),
        length: if let Item::File(_, hashes) = item { hashes.digests.length } else { 0 },
        hashes: item.hashes().into_iter().map(signal).collect(),
    }
}
