//! Whatever is wrong with what is given: an exit code, the field and the fix, and nothing half done.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;

use image::{ImageFormat, RgbImage};
use staydown::hashing::drawn;

use crate::world::{Forum, Ran, hash, program, run};

/// A picture of a format, without its second half.
fn half(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    let mut bytes = bytes.into_inner();
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// A PNG that claims 10,000 times 10,000 pixels, and has none.
fn huge_png() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = b"IHDR".to_vec();
    header.extend(10_000_u32.to_be_bytes());
    header.extend(10_000_u32.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    for chunk in [&header[..], b"IDAT\0"] {
        bytes.extend(u32::try_from(chunk.len() - 4).unwrap().to_be_bytes());
        bytes.extend(chunk);
        bytes.extend(crc32(chunk).to_be_bytes());
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Writes everything that is wrong into the forum's folder.
fn write_files(forum: &Forum) {
    let write = |name: &str, bytes: &[u8]| fs::write(forum.path(name), bytes).unwrap();
    let picture = drawn::poster(7, 360, 270);
    for (name, format) in [
        ("half.png", ImageFormat::Png),
        ("half.jpg", ImageFormat::Jpeg),
        ("half.gif", ImageFormat::Gif),
        ("half.bmp", ImageFormat::Bmp),
        ("half.webp", ImageFormat::WebP),
    ] {
        write(name, &half(&picture, format));
    }
    write("huge.png", &huge_png());
    write("empty", b"");
    let md5 = "900150983cd24fb0d6963f7d28e17f72";
    write("short.csv", format!("type,value,labels\nmd5,{md5},symbol\nmd5,12,symbol\n").as_bytes());
    write("label.csv", format!("type,value,labels\nmd5,{md5},simbol\n").as_bytes());
    write("column.csv", format!("type,value,label\nmd5,{md5},symbol\n").as_bytes());
    write("headless.csv", format!("md5,{md5},symbol\n").as_bytes());
    write("bare.csv", b"type,value,labels\n");
    write("latin1.csv", &[b"type,value,labels\nmd5,", md5.as_bytes(), b",\xe9\n"].concat());
    write("long.csv", format!("type,value,labels\nmd5,{md5},symbol{}\n", ";symbol".repeat(3_000)).as_bytes());
    write("nul.csv", b"\0\0\0\0\0\0");
    write("quoted.csv", format!("type,value,labels\nmd5,\"{md5},symbol\nmd5,{md5},symbol\n").as_bytes());
    write("utf16.csv", &"\u{feff}type,value\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    write("deep.jsonl", format!("{{\"type\":{}\n{}\n", "[".repeat(10_000), "x".repeat(70_000)).as_bytes());
    write("unknown.toml", b"[log]\nfilter = \"info\"\n[peer]\nlisten_on = \"127.0.0.1:1\"\n");
    write("value.toml", b"[peer]\nlisten = \"7700\"\n");
    write("broken.toml", b"[peer\n");
    write("junk.sdc", b"-----BEGIN STAYDOWN CHARTER-----\nAAAA\n");
    write("latin1.sdi", b"\xff\xfe\xfd");
    write("secret", b"not for you");
    fs::set_permissions(forum.path("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    write("founder.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
}

/// A command line with `@name` for a file of the folder, the exit code, and what must be said.
type Case = (&'static str, i32, &'static [&'static str]);

const ANYWHERE: &[Case] = &[
    ("fly", 2, &["unrecognized subcommand"]),
    ("status --fast", 2, &["--fast"]),
    ("hash", 2, &["<FILE"]),
    ("hash @none.jpg", 65, &["none.jpg", "No such file"]),
    ("hash @.", 65, &["is not a regular file"]),
    ("hash @half.png", 65, &["half.png", "damaged PNG image"]),
    ("hash @half.jpg", 65, &["half.jpg", "damaged JPEG image", "ends before the picture does"]),
    ("hash @half.gif", 65, &["half.gif", "damaged GIF image"]),
    ("hash @half.bmp", 65, &["half.bmp", "damaged BMP image"]),
    ("hash @half.webp", 65, &["half.webp", "damaged WebP image"]),
    ("hash @huge.png", 65, &["huge.png", "10000 x 10000", "50000000", "scale it down"]),
    ("--config @unknown.toml status", 78, &["unknown.toml line 4", "listen_on", "did you mean \"peer.listen\""]),
    ("--config @value.toml status", 78, &["value.toml line 2", "peer.listen is \"7700\"", "0.0.0.0:7700"]),
    ("--config @broken.toml status", 78, &["broken.toml, line 1"]),
    ("--config @none.toml status", 78, &["none.toml"]),
    ("--config @. status", 78, &["cannot read the settings"]),
    ("charter show @junk.sdc", 65, &["junk.sdc"]),
    ("charter show @empty", 65, &["empty"]),
    ("charter show @none.sdc", 65, &["none.sdc"]),
    ("charter show @invite.sdj", 65, &["invite.sdj"]),
    ("charter show @latin1.sdi", 65, &["latin1.sdi"]),
    ("charter sign @draft.sdc --key @founder.pem", 65, &["founder.pem"]),
    ("charter sign @draft.sdc --key @none.pem", 74, &["none.pem"]),
    ("charter apply @draft.sdc", 2, &["first charter is not applied", "staydown charter invite"]),
    ("charter admit @draft.sdc --into @draft.sdc", 65, &["draft.sdc"]),
    ("charter admit @acme.sdj --role FOOL --into @draft.sdc", 2, &["--role", "FOOL", "FULL, SMALL"]),
    ("charter found --name X --founder @none.pub --threshold 1", 65, &["none.pub"]),
    ("charter found --name X --founder 00 --threshold 1", 65, &["00"]),
    ("charter key @founder.pem", 4, &["founder.pem"]),
    ("init --forum 12 --name a --group A --jurisdiction FR --endpoint a:1", 2, &["--forum", "64 digits, got 2"]),
    ("init --founding @empty --name a --group A --jurisdiction FR --endpoint a:1", 65, &["empty"]),
    ("init --founding @draft.sdc --name a --group A --jurisdiction France --endpoint a:1", 2, &["jurisdiction"]),
    ("init --founding @draft.sdc --name a --group A --jurisdiction FR --endpoint a", 2, &["endpoint"]),
    ("join @latin1.sdi --once", 65, &["latin1.sdi"]),
    ("join @. --once", 74, &["."]),
    ("status", 5, &["cannot be reached", "staydown run"]),
    ("peer list", 5, &["staydown run"]),
    ("log verify", 5, &["staydown run"]),
    ("list search", 5, &["staydown run"]),
    ("match md5:900150983cd24fb0d6963f7d28e17f72", 5, &["staydown run"]),
    ("submit md5:900150983cd24fb0d6963f7d28e17f72 --label symbol", 5, &["staydown run"]),
    ("run", 78, &["has not joined a forum", "staydown join FILE"]),
    ("--demo acme status", 5, &["no demo is running", "staydown demo"]),
];

const AT_A_NODE: &[Case] = &[
    ("run", 73, &["locked by another process"]),
    ("match sha256:abcd", 2, &["sha256", "got 4 characters, expected 64"]),
    ("match abababababababababababababababababababababababababababababababab", 2, &["pdq or sha256"]),
    ("match sha3:00", 2, &["sha3", "expected one of pdq"]),
    ("match @none.jpg", 2, &["neither a file nor a hash", "give the path of a file"]),
    ("match @half.png", 65, &["damaged PNG image"]),
    ("match --distance 32 sha256:ab", 2, &["--distance", "0..=31"]),
    ("match -", 2, &["stdin, line 2", "got 4 characters"]),
    ("submit sha256:abcd --label symbol", 2, &["got 4 characters, expected 64"]),
    ("submit @half.jpg --label symbol", 65, &["damaged JPEG image"]),
    ("submit @huge.png --label symbol", 65, &["10000 x 10000"]),
    ("submit @empty --label symbol", 2, &["empty file"]),
    ("submit @latin1.csv --label simbol", 2, &["labels", "simbol", "did you mean symbol?"]),
    ("submit @latin1.csv", 2, &["--label is missing", "staydown taxonomy show"]),
    ("submit @latin1.csv --label symbol --severity 5", 2, &["--severity", "0..=4"]),
    ("submit @latin1.csv --label symbol --expires yesterday", 2, &["--expires", "yesterday"]),
    ("submit @latin1.csv --label symbol --language f", 2, &["--language", "BCP 47"]),
    ("submit @latin1.csv --label symbol --incident 00", 2, &["--incident", "32 hexadecimal digits"]),
    ("submit @latin1.csv --label symbol --client-key 00", 2, &["--client-key"]),
    ("submit @latin1.csv --label symbol --client-key 00 --bulk --incident 00", 2, &["--incident"]),
    ("submit pdq:@PDQ --label symbol", 2, &["quality"]),
    ("submit --from @none.csv", 65, &["none.csv"]),
    ("submit --from @empty", 65, &["line 1", "type and value"]),
    ("submit --from @bare.csv", 65, &["no row below the header"]),
    (
        "submit --from @short.csv --check",
        65,
        &["line 3, column value: got 2 characters, expected 32", "nothing was sent"],
    ),
    ("submit --from @label.csv", 65, &["line 2, column labels", "did you mean symbol?"]),
    ("submit --from @column.csv", 65, &["line 1", "\"label\"", "did you mean labels?"]),
    ("submit --from @headless.csv", 65, &["line 1", "expected a header of type,value"]),
    ("submit --from @latin1.csv", 65, &["line 2", "not UTF-8"]),
    ("submit --from @long.csv", 65, &["line 2", "more than 16384 characters"]),
    ("submit --from @nul.csv", 65, &["line 1"]),
    ("submit --from @quoted.csv --check", 65, &["line 2: a quote is not closed", "1 of 2 rows are refused"]),
    ("submit --from @utf16.csv", 65, &["line 1: not UTF-8"]),
    ("submit --from @list.json", 2, &["does not tell the format", "--format csv, jsonl"]),
    (
        "submit --from @deep.jsonl --label symbol",
        65,
        &["line 1: is no JSON: recursion limit", "line 2: has more than 65536"],
    ),
    ("submit --from @none.csv --check", 65, &["none.csv"]),
    ("submit --from @label.csv --rejected @label.csv", 2, &["--rejected"]),
    ("submit --from @short.csv --client-key 00112233445566778899aabbccddeeff", 2, &["--client-key"]),
    ("submit sha256:@NEW --check", 2, &["--from"]),
    ("batch undo 0011223344556677 --yes", 3, &["no record of our logs"]),
    ("batch undo 0011223344556677 --reason spite", 2, &["--reason"]),
    ("list export --format xml", 2, &["xml", "threatexchange"]),
    ("submit --from @.", 65, &["is not a regular file"]),
    ("submit md5:900150983cd24fb0d6963f7d28e17f72 --from @bare.csv", 2, &["--from"]),
    ("entry show sha256:@NEW", 3, &[]),
    ("entry endorse sha256:@NEW", 3, &[]),
    ("entry dispute sha256:@NEW --reason news-reporting", 3, &[]),
    ("entry withdraw sha256:@NEW", 3, &[]),
    ("entry dispute sha256:@NEW --reason news", 2, &["--reason", "news-reporting"]),
    ("entry show @half.bmp", 65, &["damaged BMP image"]),
    ("list search --type md6", 2, &["--type", "md6", "md5"]),
    ("list search --status ACTVE", 2, &["--status", "ACTIVE"]),
    ("list search --label simbol", 2, &["label", "did you mean symbol?"]),
    ("list search --limit x", 2, &["--limit"]),
    ("charter apply @junk.sdc", 65, &["junk.sdc"]),
    ("init --forum @FORUM --name a --group A --jurisdiction FR --endpoint a:1", 73, &["locked by another process"]),
];

fn arguments(line: &str, forum: &Forum) -> Vec<String> {
    let word = |word: &str| {
        let word = word.replace("@FORUM", &forum.fingerprint).replace("@NEW", &hash(9)).replace("@PDQ", &hash(8));
        word.strip_prefix('@').map_or(word.clone(), |name| forum.path(name))
    };
    line.split(' ').map(word).collect()
}

/// Runs a case, as text and as JSON. Returns what is wrong with its end.
fn complaint((line, code, told): &Case, forum: &Forum, data: &str) -> Option<String> {
    let folder = forum.path("tmp");
    let arguments = arguments(line, forum);
    let stdin = b"md5:900150983cd24fb0d6963f7d28e17f72\nmd5:1234\n";
    let command = |json: &[&str]| {
        let mut command = program();
        if !line.contains("--demo") {
            command.args(["--data", data]);
        }
        command.args(json).args(&arguments).env("TMPDIR", &folder).current_dir(forum.folder.path());
        Ran::of(&mut command, stdin)
    };
    let text = command(&[]);
    if text.code != Some(*code) || told.iter().any(|word| !text.err.contains(word)) || !text.out.is_empty() {
        return Some(format!("{line}: expected {code} and {told:?}, got {text:?}"));
    }
    let json = command(&["--json"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap_or_default();
    let same = json.code == Some(*code) && value["error"]["exit_code"] == *code;
    (!same).then(|| format!("{line} --json: expected {code}, got {json:?}"))
}

#[test]
fn every_mistake_is_told_with_its_place_and_leaves_nothing_half_done() {
    let mut forum = Forum::found(1);
    forum.join();
    write_files(&forum);
    let acme = &forum.companies[0];
    acme.does(&["submit", &format!("sha256:{}", hash(1)), "--label", "symbol"]);
    let (before, draft) = (acme.status(), fs::read(forum.path("draft.sdc")).unwrap());

    let (nobody, data) = (forum.path("nobody"), acme.data.to_str().unwrap().to_owned());
    let mut complaints: Vec<_> = ANYWHERE.iter().filter_map(|case| complaint(case, &forum, &nobody)).collect();
    complaints.extend(AT_A_NODE.iter().filter_map(|case| complaint(case, &forum, &data)));
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));

    let after = acme.status();
    for field in ["entries", "records", "blocks", "outbox", "charter_version", "heads"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(fs::read(forum.path("draft.sdc")).unwrap(), draft);
    assert!(!fs::exists(&nobody).unwrap(), "a command that failed has made a data directory");
}

#[test]
fn more_hashes_than_one_call_takes_are_refused_with_the_way_that_does() {
    let hashes: Vec<_> = (0..2_000).map(|n| format!("sha256:{}", hash(n))).collect();
    let mut arguments = vec!["submit", "--label", "symbol", "--json"];
    arguments.extend(hashes.iter().map(String::as_str));
    let told = run(&arguments).ends_with(2).json();
    assert_eq!(told["error"]["fix"], "staydown submit --from FILE.csv");
}

#[test]
fn a_file_that_may_not_be_read_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "abc").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        return; // a superuser may read everything
    }
    let ran = run(&["hash", path.to_str().unwrap()]).ends_with(74);
    assert!(ran.err.contains("secret") && ran.err.contains("Permission denied"), "{ran:?}");
}
