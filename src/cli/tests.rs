//! The commands as an operator types them, against a node that answers from a script.
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::*;

mod readme;

const HMAC: &str = "0123456789abcdef0123456789abcdef";

/// Runs a command; its exit code and output, or its error.
fn orbweb(line: &str) -> Result<(ExitCode, String), String> {
    orbweb_in(&[], line)
}

fn orbweb_in(environment: &[(&str, &str)], line: &str) -> Result<(ExitCode, String), String> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let around = Surroundings { environment: environment.collect(), host: "web-1".to_owned() };
    let words = ["orbweb"].into_iter().chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let code = execute(cli, &around, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok((code, String::from_utf8(out).expect("text")))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("a writable file");
    file
}

/// A node that gives these answers to these paths, and nothing to wrong keys.
fn node(answers: &[(&str, u16, Value)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answers: BTreeMap<String, (u16, String)> = answers
        .iter()
        .map(|(path, status, body)| ((*path).to_owned(), (*status, body.to_string())))
        .collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let unknown = (404, "{}".to_owned());
            let denied =
                (401, json!({"error": {"code": 101, "message": "unauthorized"}}).to_string());
            let open = !path.starts_with("/api") || request.contains("x-api-key: right");
            let (status, body) = if open { answers.get(path).unwrap_or(&unknown) } else { &denied };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            // The body of a request isn't read, so the client may be gone early.
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

fn report(name: &str, state: &str, view: &str) -> Value {
    json!({
        "name": name, "incarnation": "1a2b3c4d000000000000000000000001", "state": state,
        "serving": "full", "client_url": format!("http://{name}:8000"), "link_address": "10.0.0.1:7400",
        "slots_owned": 5461, "slots_claiming": 3, "slots_under_replicated": 0,
        "slots_unrepaired": 0, "slots_astray": 0, "changes_uncommitted": 0, "links": 2, "link_versions": {"1": 2}, "connections": 1200, "uptime_s": 3725,
        "version": "0.1.0", "view_hash": view,
    })
}

fn ready() -> (&'static str, u16, Value) {
    ("/readyz", 200, json!({"ready": true, "reasons": []}))
}

#[test]
fn flags_belong_to_serve_with_and_without_its_name() {
    for line in ["--join a --dev", "serve --join a --dev"] {
        let error = orbweb(line).expect_err("there is no secret");
        assert!(
            error.contains("`join` (flag --join)") && error.contains("orbweb secret"),
            "{error}"
        );
    }
    assert!(orbweb("--joyn a").expect_err("no such flag").contains("--join"));
    let error = orbweb("--dev --listen 0.0.0.0:1").expect_err("dev is for loopback");
    assert!(error.contains("--dev-anywhere"), "{error}");
    assert!(orbweb("--set copies").expect_err("no value").contains("KEY=VALUE"));
}

#[test]
fn the_greeting_says_where_to_connect() {
    let config =
        |line: &str| match Cli::try_parse_from(["orbweb"].into_iter().chain(line.split(' '))) {
            Ok(cli) => cli.serve.load(&Surroundings::default()).expect("a sound configuration"),
            Err(error) => panic!("{error}"),
        };
    let alone = serve::greeting(&config("--name n1 --dev"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        alone,
        format!(
            "Orbweb {version}, node n1\n  clients  ws://127.0.0.1:8000/connection/websocket\n  \
             API      http://127.0.0.1:8000/api (closed: no `api.keys`)\n  \
             demo     http://127.0.0.1:8000/demo\n  peers    none: a node alone\n"
        )
    );
    let meshed =
        serve::greeting(&config("--secret-file x --join a --join b:1 --listen 127.0.0.1:0"));
    assert!(
        meshed.contains("a free port")
            && meshed.contains("0.0.0.0:7400 (UDP), joining a:7400, b:1")
    );
}

#[test]
fn secrets_are_32_random_bytes() {
    let draw = || orbweb("secret").expect("a secret").1;
    let (one, other) = (draw(), draw());
    assert_eq!(STANDARD.decode(one.trim()).expect("base64").len(), 32);
    assert_ne!(one, other);
}

#[test]
fn tokens_carry_their_claims_and_are_signed() {
    let config = file(&format!("[token]\nhmac_secret = \"{HMAC}\""));
    let path = config.path().display();
    let line = format!(
        "token --config {path} --user alice --ttl 5m --info {{\"n\":1}} --channel a --channel b"
    );
    let token = orbweb(&line).expect("a token").1;
    let decode = |key: &str| {
        let key = DecodingKey::from_secret(key.as_bytes());
        jsonwebtoken::decode::<Value>(token.trim(), &key, &Validation::new(Algorithm::HS256))
    };
    let claims = decode(HMAC).expect("our signature").claims;
    assert_eq!((&claims["sub"], &claims["info"]), (&json!("alice"), &json!({"n": 1})));
    assert_eq!(claims["channels"], json!(["a", "b"]));
    assert_eq!(claims["exp"].as_u64(), claims["iat"].as_u64().map(|iat| iat + 300));
    assert!(decode("another key of the same length!!").is_err());
}

#[test]
fn tokens_need_a_secret() {
    let error = orbweb("token --user alice").expect_err("no secret");
    assert!(error.contains("`token.hmac_secret` is not set"), "{error}");
    let secret = [("ORBWEB_TOKEN_HMAC_SECRET", HMAC)];
    assert!(orbweb_in(&secret, "token --user alice").is_ok());
    let error = orbweb_in(&secret, "token --user alice --info {").expect_err("no JSON");
    assert!(error.contains("--info is not JSON"), "{error}");
}

#[test]
fn config_check_judges_the_file_alone() {
    let sound = file("copies = 3\n[client]\nallow_anonymous = true");
    let path = sound.path().display();
    let told = orbweb_in(&[("ORBWEB_COPIES", "9")], &format!("config check {path}"));
    assert_eq!(told.expect("sound"), (ExitCode::SUCCESS, format!("{path} is sound\n")));
    let unsound = file("copies = 9");
    let error = orbweb(&format!("config check {}", unsound.path().display())).expect_err("unsound");
    assert!(error.contains("`copies` is 9"), "{error}");
    let error = orbweb("config check /nonexistent").expect_err("no file");
    assert!(error.contains("cannot read /nonexistent"), "{error}");
}

#[test]
fn config_show_takes_all_layers_and_masks_secrets() {
    let secret = [("ORBWEB_SECRET", "hunter2-hunter2-hunter2")];
    let (_, text) =
        orbweb_in(&secret, "config show --copies 3 --set namespaces.chat.presence=true")
            .expect("sound");
    for line in [
        "copies = 3 # flag --copies",
        "secret = \"********\" # environment ORBWEB_SECRET",
        "[namespaces.chat]",
        "presence = true # flag --set",
    ] {
        assert!(text.lines().any(|l| l == line), "{text} lacks {line}");
    }
    assert!(!text.contains("hunter2"));
}

#[test]
fn health_checks_need_no_key() {
    let up = node(&[ready()]);
    let (code, text) = orbweb(&format!("status --ready --node {up}")).expect("an answer");
    assert_eq!((code, text), (ExitCode::SUCCESS, format!("http://{up} is ready\n")));
    let (code, text) = orbweb(&format!("status --node {up}")).expect("an answer");
    assert!(code == ExitCode::SUCCESS && text.contains("give a key"));
    let why = json!({"ready": false, "reasons": ["no link to a peer yet", "joining"]});
    let joining = node(&[("/readyz", 503, why)]);
    let (code, text) = orbweb(&format!("status --ready --node {joining}")).expect("an answer");
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(text, format!("http://{joining} is not ready: no link to a peer yet; joining\n"));
}

#[test]
fn a_node_that_does_not_answer_is_an_error() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let error = orbweb(&format!("status --node {address}")).expect_err("nobody is there");
    assert!(error.contains("does not answer"), "{error}");
    let other = node(&[("/readyz", 200, json!("hello"))]);
    let error = orbweb(&format!("status --node {other}")).expect_err("not one of ours");
    assert!(error.contains("is not an Orbweb node"), "{error}");
    let error = orbweb("status --node https://x.org").expect_err("no TLS");
    assert!(error.contains("only http://"), "{error}");
}

#[test]
fn status_shows_nodes_and_where_they_disagree() {
    let mut mixed = report("node-2", "up", "bb");
    mixed["link_versions"] = json!({"1": 1, "2": 1});
    let mut silent = report("n3", "silent", "");
    silent["link_versions"] = json!({});
    let nodes = json!([report("n1", "up", "aa"), mixed, silent]);
    let asked = node(&[ready(), ("/api/status", 200, json!({"result": {"nodes": nodes}}))]);
    let (code, text) =
        orbweb(&format!("status --node {asked} --api-key right")).expect("an answer");
    assert_eq!(code, ExitCode::SUCCESS);
    let text = text.replace(&format!("http://{asked} is ready\n"), "");
    assert_eq!(
        text,
        "\
NAME    INCARNATION  STATE   SERVING  SLOTS   UNDER-REPLICATED  LINKS  PROTOCOL      CONNS  UPTIME    VERSION  ADDRESSES (clients, peers)
n1      1a2b3c4d     up      full     5461+3  0                 2      1             1200   1h 2m 5s  0.1.0    http://n1:8000, 10.0.0.1:7400
node-2  1a2b3c4d     up      full     5461+3  0                 2      1 (1), 2 (1)  1200   1h 2m 5s  0.1.0    http://node-2:8000, 10.0.0.1:7400
n3      1a2b3c4d     silent  full     5461+3  0                 2      -             1200   1h 2m 5s  0.1.0    http://n3:8000, 10.0.0.1:7400
warning: nodes disagree on the view, so some are out of touch:
  view aa: n1
  view bb: node-2
"
    );
    let key = [("ORBWEB_API_KEYS", "right-and-long-enough,other-and-long-enough")];
    let (_, text) = orbweb_in(&key, &format!("status --json --node {asked}")).expect("an answer");
    let whole: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&whole["ready"], &whole["views_agree"]), (&json!(true), &json!(false)));
    assert_eq!(whole["nodes"], nodes);
    let error = orbweb(&format!("status --node {asked} --api-key wrong")).expect_err("a wrong key");
    assert!(error.contains("unauthorized"), "{error}");
}

#[test]
fn status_warns_of_fewer_copies() {
    let mut short = report("n1", "up", "aa");
    short["serving"] = "degraded".into();
    short["slots_under_replicated"] = 7.into();
    let mut repairing = report("n2", "up", "aa");
    repairing["slots_under_replicated"] = 9.into();
    repairing["slots_unrepaired"] = 2.into();
    let mut astray = report("n3", "up", "aa");
    astray["slots_astray"] = 5.into();
    let nodes = json!([short, repairing, astray]);
    let asked = node(&[ready(), ("/api/status", 200, json!({"result": {"nodes": nodes}}))]);
    let (_, text) = orbweb(&format!("status --node {asked} --api-key right")).expect("an answer");
    let (_, warnings) = text.split_once("warning: ").expect("a warning");
    assert_eq!(
        warnings,
        "n1 is degraded: it acknowledges with fewer copies\n\
         warning: n1 has 7 slots with too few copies, which more nodes are needed for\n\
         warning: n2 has 9 slots with too few copies, 2 of them being copied\n\
         warning: n3 holds what the owners of 5 slots may lack\n"
    );
}

#[test]
fn owner_shows_where_a_key_lives() {
    let n = |name: &str| json!({"name": name, "incarnation": "1a2b3c4d000000000000000000000001"});
    let located = json!({"slot": 5808, "owner": n("n1"), "successors": [n("n2"), n("n3")]});
    let asked = node(&[("/api/owner", 200, json!({"result": located}))]);
    let line = format!("owner alice --node {asked} --api-key right");
    let (_, text) = orbweb(&line).expect("an answer");
    assert_eq!(
        text,
        "slot        5808\nowner       n1@1a2b3c4d\nsuccessors  n2@1a2b3c4d, n3@1a2b3c4d\n"
    );
    let (_, text) = orbweb(&format!("{line} --json")).expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), located);
    let error = orbweb(&format!("owner alice --node {asked}")).expect_err("no key");
    assert!(error.contains("needs a key"), "{error}");
}

#[test]
fn the_demo_takes_a_time_and_a_number() {
    assert!(Cli::try_parse_from(["orbweb", "demo", "--nodes", "5", "--for", "30s"]).is_ok());
    for wrong in [["--nodes", "0"], ["--nodes", "21"], ["--for", "soon"]] {
        let line = ["orbweb", "demo"].into_iter().chain(wrong);
        assert!(Cli::try_parse_from(line).is_err(), "{wrong:?} was accepted");
    }
}
