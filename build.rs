//! Compiles `proto/` without protoc, and derives from the same descriptors the tables that the strict scan
//! (PROTOCOL section 4) reads: one schema, so that the scan and the decoder cannot disagree about it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

const FILES: [&str; 4] = [
    "proto/staydown/peer/v1/signed.proto",
    "proto/staydown/peer/v1/peer.proto",
    "proto/staydown/local/v1/forum.proto",
    "proto/staydown/local/v1/files.proto",
];

/// What the node keeps for itself: messages only, and no business of those who ask a service what it speaks.
const KEPT: &str = "proto/staydown/store/v1/snapshot.proto";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let descriptors = protox::compile(FILES, ["proto"]).map_err(io::Error::other)?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("schemas.rs"), schemas(&descriptors))?;

    // Messages alone for the replica, which knows nothing of tonic; services apart for `wire/`.
    let messages = out.join("messages");
    fs::create_dir_all(&messages)?;
    prost_build::Config::new().bytes(["."]).out_dir(&messages).compile_fds(descriptors.clone())?;
    let kept = protox::compile([KEPT], ["proto"]).map_err(io::Error::other)?;
    prost_build::Config::new().bytes(["."]).out_dir(&messages).compile_fds(kept)?;
    let services = out.join("services");
    fs::create_dir_all(&services)?;
    tonic_prost_build::configure()
        .extern_path(".staydown.peer.v1", "crate::replica::proto")
        .extern_path(".staydown.local.v1", "crate::wire::local")
        .out_dir(&services)
        .compile_fds(descriptors)?;
    give_reasons(&services)
}

/// Our lints want a reason at every `allow`; the generator gives none.
fn give_reasons(services: &Path) -> io::Result<()> {
    for file in fs::read_dir(services)? {
        let path = file?.path();
        let source = fs::read_to_string(&path)?
            .replace("#[allow(non_camel_case_types)]", "#[allow(non_camel_case_types, reason = \"generated\")]")
            .replace("clippy::let_unit_value,\n", "clippy::let_unit_value,\n        reason = \"generated\",\n");
        fs::write(path, source)?;
    }
    Ok(())
}

/// Rust source of one `Schema` per message of `signed.proto`.
fn schemas(descriptors: &FileDescriptorSet) -> String {
    let mut source = String::new();
    for file in descriptors.file.iter().filter(|f| f.name().ends_with("signed.proto")) {
        for message in &file.message_type {
            schema(message, &mut source);
        }
    }
    source
}

fn schema(message: &DescriptorProto, source: &mut String) {
    let mut fields: Vec<_> = message.field.iter().collect();
    fields.sort_by_key(|f| f.number());
    let rows: String = fields
        .iter()
        .map(|f| {
            let kind = match f.r#type() {
                Type::Uint32 | Type::Enum => "Kind::Uint32".to_owned(),
                Type::Uint64 => "Kind::Uint64".to_owned(),
                Type::Bool => "Kind::Bool".to_owned(),
                Type::Bytes => "Kind::Bytes".to_owned(),
                Type::String => "Kind::String".to_owned(),
                Type::Message => {
                    format!("Kind::Message(&{})", constant(f.type_name().rsplit('.').next().unwrap_or_default()))
                }
                other => panic!("{}.{}: {other:?} has no strict encoding", message.name(), f.name()),
            };
            let repeated = f.label() == Label::Repeated;
            format!(
                "    Field {{ number: {}, name: \"{}\", kind: {kind}, repeated: {repeated} }},\n",
                f.number(),
                f.name()
            )
        })
        .collect();
    let name = message.name();
    writeln!(
        source,
        "/// Strict-scan table of `{name}`, made from `signed.proto`.\npub static {}: Schema = Schema {{ name: \"{name}\", fields: &[\n{rows}] }};",
        constant(name)
    )
    .expect("writing to a String cannot fail");
}

/// `NodeEntry` becomes `NODE_ENTRY`.
fn constant(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}
