//! Layering, every error, and what `config show` shows.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::Flag;
use super::*;

const SECRET: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MDA=";

/// A configuration in the making.
#[derive(Default)]
struct Given {
    file: Option<tempfile::NamedTempFile>,
    flags: Vec<Flag>,
    environment: BTreeMap<String, String>,
}

fn file(text: &str) -> Given {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("a writable file");
    Given { file: Some(file), ..Given::default() }
}

fn flag(name: &str, value: &str) -> Given {
    Given::default().flag(name, value)
}

impl Given {
    fn flag(mut self, key: &str, value: &str) -> Self {
        let flag = format!("--{}", key.replace(['_', '.'], "-"));
        self.flags.push(Flag { key: key.to_owned(), flag, value: value.to_owned() });
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn path(&self) -> PathBuf {
        self.file.as_ref().expect("a file was given").path().to_owned()
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let layers =
            Layers { file: self.file.as_ref().map(|_| self.path()), flags: self.flags.clone() };
        let around =
            Surroundings { environment: self.environment.clone(), host: "web 1".to_owned() };
        Config::load(&layers, &around)
    }

    fn config(&self) -> Config {
        self.load().expect("a sound configuration")
    }

    /// The error's text, without the path of the file.
    fn error(&self) -> String {
        let error = self.load().expect_err("an unsound configuration").to_string();
        match &self.file {
            Some(file) => error.replace(&file.path().display().to_string(), "FILE"),
            None => error,
        }
    }
}

#[test]
fn nothing_given_is_one_node_on_loopback() {
    let config = Given::default().config();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.mesh_address(), None);
    assert_eq!(config.name.as_str(), "web-1");
    assert_eq!(config, Config { name: config.name.clone(), ..Config::default() });
}

#[test]
fn the_default_name_tells_nodes_of_one_host_apart() {
    assert_eq!(flag("listen", "127.0.0.1:8001").config().name.as_str(), "web-1-8001");
}

#[test]
fn flags_override_environment_overrides_file() {
    let all = || {
        file("copies = 3\nslots = 64\nweight = 2")
            .env("ORBWEB_COPIES", "4")
            .env("ORBWEB_SLOTS", "128")
    };
    let config = all().flag("copies", "5").config();
    assert_eq!(
        (config.copies, config.slots, config.weight, config.gossip_interval),
        (5, 128, 2, Duration::from_millis(100))
    );
    assert_eq!(config.origin("copies"), Origin::Flag("--copies".to_owned()));
    assert_eq!(config.origin("slots"), Origin::Environment("ORBWEB_SLOTS".to_owned()));
    assert!(matches!(config.origin("weight"), Origin::File(_)));
    assert_eq!(config.origin("gossip_interval"), Origin::Default);
}

#[test]
fn the_environment_may_name_the_file() {
    let named = file("copies = 3");
    let path = named.path();
    let config = Given::default().env("ORBWEB_CONFIG", path.to_str().expect("UTF-8")).config();
    assert_eq!(config.copies, 3);
}

#[test]
fn empty_and_foreign_variables_are_left_alone() {
    let config = Given::default()
        .env("ORBWEB_SECRET", " ")
        .env("ORBWEB_PORT", "tcp://10.0.0.1:8000")
        .env("ORBWEB_SERVICE_HOST", "10.0.0.1")
        .config();
    assert_eq!(config.secret, None);
}

#[test]
fn lists_come_in_every_layer() {
    let shown = |given: Given| {
        given
            .env("ORBWEB_SECRET", SECRET)
            .config()
            .join
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(file("join = [\"a\", \"b:1\"]")), ["a:7400", "b:1"]);
    assert_eq!(shown(Given::default().env("ORBWEB_JOIN", "a, b:1,")), ["a:7400", "b:1"]);
    assert_eq!(shown(flag("join", "a").flag("join", "b:1")), ["a:7400", "b:1"]);
}

#[test]
fn channels_and_namespaces_are_read() {
    let config = file(
        "[inbox]\nhistory_size = 7\nhistory_ttl = \"1m\"\n[channels]\nallow_subscribe = true\n\
         [namespaces.chat]\nhistory_size = 50\nhistory_ttl = \"5m\"\nrecovery = true\npresence = true\n[namespaces.bare]",
    )
    .env("ORBWEB_CHANNELS_ALLOW_PUBLISH", "true")
    .flag("namespaces.chat.join_leave", "true")
    .config();
    let chat = &config.channels.namespaces["chat"];
    assert_eq!((chat.history_size, chat.history_ttl), (50, Duration::from_secs(300)));
    assert!(chat.recovery && chat.presence && chat.join_leave && !chat.allow_publish);
    assert_eq!(config.channels.namespaces["bare"], Namespace::default());
    assert!(config.channels.plain.allow_subscribe && config.channels.plain.allow_publish);
    assert_eq!(config.channels.inbox.history_size, 7);
    assert!(config.channels.inbox.recovery, "the inbox's other defaults hold");
}

#[test]
fn a_file_of_the_highest_layer_wins_over_a_secret() {
    let secret = file(SECRET);
    let path = secret.path();
    let both = |env: &str, flag_key: &str| {
        Given::default().env(env, SECRET).flag(flag_key, path.to_str().expect("UTF-8")).config()
    };
    let config = both("ORBWEB_SECRET", "secret_file");
    assert_eq!((&config.secret, &config.secret_file), (&None, &Some(path.clone())));
    let read = config.read_secrets().expect("a readable file");
    assert_eq!(read.secret.expect("was read").expose(), SECRET);
}

#[test]
fn secret_files_that_cannot_be_read_are_errors_that_name_the_key() {
    let config = flag("secret_file", "/nonexistent/secret").config();
    let error = config.read_secrets().expect_err("there is no such file").to_string();
    assert!(
        error.starts_with("cannot read /nonexistent/secret, which `secret_file` names: "),
        "{error}"
    );
    let empty = file("\n");
    let config = flag("secret_file", empty.path().to_str().expect("UTF-8")).config();
    assert!(config.read_secrets().expect_err("empty").to_string().contains("the file is empty"));
}

#[test]
fn unknown_keys_are_errors_that_suggest_known_ones() {
    for (text, said) in [
        ("copis = 2", "unknown key `copis` (file FILE); did you mean `copies`?"),
        (
            "mesh-listen = \"a\"",
            "unknown key `mesh-listen` (file FILE); did you mean `mesh_listen`?",
        ),
        (
            "[token]\nhmac_secrt = \"x\"",
            "unknown key `token.hmac_secrt` (file FILE); did you mean `token.hmac_secret`?",
        ),
        (
            "[namespaces.chat]\nhistory-size = 1",
            "unknown key `namespaces.chat.history-size` (file FILE); did you mean `namespaces.chat.history_size`?",
        ),
        ("zebra = 1", "unknown key `zebra` (file FILE)"),
        ("[zebra]\nx = 1", "unknown key `zebra` (file FILE)"),
    ] {
        assert_eq!(file(text).error(), said);
    }
}

#[test]
fn wrong_values_name_key_value_origin_and_what_is_allowed() {
    for (given, said) in [
        (file("copies = 9"), "`copies` is 9 (file FILE), but must be a whole number from 1 to 5"),
        (
            file("copies = \"2\""),
            "`copies` is \"2\" (file FILE), but must be a whole number from 1 to 5",
        ),
        (
            file("listen = 8000"),
            "`listen` is 8000 (file FILE), but must be an IP address with a port, such as 127.0.0.1:8000",
        ),
        (
            flag("degraded", "maybe"),
            "`degraded` is \"maybe\" (flag --degraded), but must be half, refuse or accept",
        ),
        (
            Given::default().env("ORBWEB_DRAIN_TIMEOUT", "soon"),
            "`drain_timeout` is \"soon\" (environment ORBWEB_DRAIN_TIMEOUT), but must be a duration from 0s to 1h",
        ),
        (
            flag("slots", "65536"),
            "`slots` is \"65536\" (flag --slots), but must be a whole number from 16 to 65535",
        ),
        (
            flag("weight", "0"),
            "`weight` is \"0\" (flag --weight), but must be a whole number from 1 to 64",
        ),
        (
            flag("name", "a b"),
            "`name` is \"a b\" (flag --name), but must be 1 to 64 letters, digits, dots, dashes and underscores",
        ),
        (
            flag("join", "a,http://b"),
            "`join` is \"a,http://b\" (flag --join), but must be a list of HOST:PORT or HOST (port 7400)",
        ),
        (
            file("[log]\nformat = \"xml\""),
            "`log.format` is \"xml\" (file FILE), but must be text or json",
        ),
        (
            file("[log]\nlevel = \"a=b=c\""),
            "`log.level` is \"a=b=c\" (file FILE), but must be a level or a list of MODULE=LEVEL",
        ),
        (
            file("client_url = \"web\""),
            "`client_url` is \"web\" (file FILE), but must be a URL that begins with http:// or https://",
        ),
        (
            file("[channels]\nhistory_ttl = 5"),
            "`channels.history_ttl` is 5 (file FILE), but must be a duration from 0s to 30days",
        ),
        (file("client = 5"), "`client` is 5 (file FILE), but must be a table of keys"),
    ] {
        assert_eq!(given.error(), said);
    }
}

#[test]
fn wrong_secrets_are_not_shown() {
    for (given, key) in [
        (file("[token]\nhmac_secret = \"hunter2\""), "token.hmac_secret"),
        (file("[api]\nkeys = [\"hunter2\"]"), "api.keys"),
        (file("secret = 2"), "secret"),
    ] {
        let error = given.error();
        assert!(error.starts_with(&format!("`{key}` is ******** (file FILE)")), "{error}");
    }
}

#[test]
fn contradictions_name_both_knobs() {
    let namespace = |text: &str| file(&format!("[namespaces.x]\n{text}"));
    for (given, words) in [
        (flag("join", "a"), vec!["`join` (flag --join)", "orbweb secret", "secret_file"]),
        (flag("mesh_listen", "0.0.0.0"), vec!["`mesh_listen`", "orbweb secret"]),
        (flag("mesh_advertise", "a"), vec!["`mesh_advertise`", "orbweb secret"]),
        (flag("previous_secret", SECRET), vec!["`previous_secret`", "orbweb secret"]),
        (flag("secret", SECRET).flag("secret_file", "x"), vec!["`secret` and `secret_file`"]),
        (
            flag("secret", SECRET).flag("previous_secret", SECRET),
            vec!["`previous_secret`", "`secret`"],
        ),
        (flag("secret", SECRET).flag("tls.ca", "x"), vec!["`tls.ca`", "`tls.cert`", "`tls.key`"]),
        (
            flag("secret", SECRET).flag("mesh_advertise", "0.0.0.0:1"),
            vec!["`mesh_advertise`", "`mesh_listen`"],
        ),
        (
            flag("dev", "true").flag("listen", "0.0.0.0:8000"),
            vec!["`dev`", "`listen`", "--dev-anywhere"],
        ),
        (flag("dev_anywhere", "true"), vec!["`dev_anywhere`", "`dev`"]),
        (
            file("[client]\npong_timeout = \"25s\""),
            vec!["`client.pong_timeout` (25s)", "`client.ping_interval` (25s)"],
        ),
        (
            namespace("history_size = 5"),
            vec!["`namespaces.x.history_size` (5)", "`namespaces.x.history_ttl`"],
        ),
        (
            namespace("history_ttl = \"5s\""),
            vec!["`namespaces.x.history_ttl` (5s)", "`namespaces.x.history_size`"],
        ),
        (
            namespace("recovery = true"),
            vec!["`namespaces.x.recovery`", "`namespaces.x.history_size`"],
        ),
        (
            namespace("allow_history = true"),
            vec!["`namespaces.x.allow_history`", "`namespaces.x.history_size`"],
        ),
        (
            namespace("allow_presence = true"),
            vec!["`namespaces.x.allow_presence`", "`namespaces.x.presence`"],
        ),
        (file("[namespaces.\"a b\"]"), vec!["namespace \"a b\"", "1 to 64 letters"]),
    ] {
        let error = given.error();
        for word in words {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = file("copies = 0\nzebra = 1\njoin = [\"a\"]").error();
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_file_that_is_not_toml_is_an_error_with_its_place() {
    let error = file("copies = \nslots = 3").error();
    assert!(error.starts_with("FILE is not TOML: ") && error.contains("line 1"), "{error}");
}

#[test]
fn a_secret_opens_the_mesh() {
    let mesh =
        |given: Given| given.flag("secret", SECRET).config().mesh_address().map(|a| a.to_string());
    assert_eq!(mesh(Given::default()).as_deref(), Some("0.0.0.0:7400"));
    assert_eq!(mesh(flag("mesh_listen", "::1")).as_deref(), Some("[::1]:7400"));
    assert_eq!(mesh(flag("mesh_listen", "127.0.0.1:0")).as_deref(), Some("127.0.0.1:0"));
}

#[test]
fn others_are_told_a_url_that_they_can_reach() {
    let url = |given: Given, bound: &str| {
        given.flag("secret", SECRET).config().client_url(bound.parse().expect("an address"))
    };
    assert_eq!(url(Given::default(), "127.0.0.1:8123"), "http://127.0.0.1:8123");
    assert_eq!(url(Given::default(), "0.0.0.0:8000"), "http://127.0.0.1:8000");
    assert_eq!(url(flag("mesh_advertise", "n1:7"), "0.0.0.0:8000"), "http://n1:8000");
    assert_eq!(url(flag("client_url", "https://x.org/"), "0.0.0.0:8000"), "https://x.org");
}

#[test]
fn dev_brings_a_chat_unless_there_is_one() {
    let config = flag("dev", "true").config();
    assert!(config.channels.dev && config.channels.namespaces["chat"].presence);
    let own = file("dev = true\n[namespaces.chat]\npresence = false").config();
    assert_eq!(own.channels.namespaces["chat"], Namespace::default());
    assert!(!Given::default().config().channels.dev);
}

#[test]
fn dev_listens_outside_loopback_if_that_is_said() {
    let config =
        flag("dev", "true").flag("dev_anywhere", "true").flag("listen", "0.0.0.0:8000").config();
    assert!(config.channels.dev && !config.listen.ip().is_loopback());
}

#[test]
fn warnings_say_what_is_hardly_meant() {
    assert!(Given::default().config().warnings()[0].contains("no client can connect"));
    assert!(flag("dev", "true").config().warnings()[0].contains("`dev` is on"));
    assert_eq!(flag("client.allow_anonymous", "true").config().warnings(), [""; 0]);
}

#[test]
fn config_show_is_as_it_was() {
    let shown = file("copies = 3\n[namespaces.chat]\nhistory_size = 100\nhistory_ttl = \"5m\"")
        .env("ORBWEB_SECRET", SECRET)
        .env("ORBWEB_API_KEYS", "0123456789abcdef,fedcba9876543210")
        .flag("name", "n1")
        .flag("join", "a,b:1");
    let text = shown.config().to_toml().replace(&shown.path().display().to_string(), "orbweb.toml");
    assert_eq!(text, include_str!("tests/show.toml"));
}

#[test]
fn what_config_show_shows_gives_the_same_configuration() {
    let config =
        file("dev = true\n[namespaces.chat]\nhistory_size = 100\nhistory_ttl = \"5m\"").config();
    let again = file(&config.to_toml()).config();
    assert_eq!(
        Config { origins: BTreeMap::new(), ..again },
        Config { origins: BTreeMap::new(), ..config }
    );
}
