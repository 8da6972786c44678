//! Files, variables, and the generated reference.

use std::time::Duration;

use super::*;
use crate::config::{Access, SlowConsumerPolicy};

#[track_caller]
fn check(file: &str, expect: &str) {
    let error = match Settings::parse(file) {
        Err(error) => error,
        Ok(settings) => settings.config().expect_err("no error"),
    };
    assert_eq!(error.to_string(), expect);
}

#[test]
fn a_file_sets_every_kind_of_option() {
    let settings = Settings::parse(
        r#"
        listen = "0.0.0.0:9000"
        api_keys = ["a", "b"]
        anonymous = true
        drain = "3"
        compression = "off"

        [tokens]
        hmac_secret = "secret"

        [limits]
        connections_max = 5
        queue_bytes_max = "2MiB"

        [channels]
        allow_subscribe = "anyone"

        [namespaces.chat]
        history_size = 10
        history_ttl = "5m"
        slow_consumer = "latest:symbol"
        publication_rate_max = 7
        "#,
    )
    .unwrap();
    assert_eq!(settings.program.listen, "0.0.0.0:9000");
    let config = settings.config().unwrap();
    assert_eq!(config.api_keys, ["a".into(), "b".into()]);
    assert_eq!(config.tokens.hmac_secret, Some("secret".into()));
    assert_eq!(
        (config.limits.connections_max, config.limits.queue_bytes_max),
        (5, 2 << 20)
    );
    assert_eq!(config.timeouts.shutdown, Duration::from_secs(3));
    assert!(config.compression.is_none() && config.anonymous);
    assert_eq!(config.namespace("x").unwrap().allow_subscribe, Access::Anyone);
    let chat = config.namespace("chat:x").unwrap();
    assert_eq!((chat.history_size, chat.history_ttl), (10, Duration::from_secs(300)));
    assert_eq!(
        chat.slow_consumer,
        SlowConsumerPolicy::Latest {
            key_tag: Some("symbol".to_owned())
        }
    );
    assert_eq!(
        (chat.publication_rate_max, chat.allow_publish),
        (Some(7), Access::Nobody)
    );
    assert_eq!(config.namespace("room:x"), None);
}

#[test]
fn an_empty_file_is_closed_and_no_file_is_open() {
    let closed = Settings::parse("").unwrap();
    assert_eq!(closed, Settings::closed());
    let config = closed.config().unwrap();
    assert!(!config.anonymous && config.namespaces.is_empty());
    assert_eq!(config.namespace("x").unwrap().allow_subscribe, Access::Token);

    let (open, default) = (Settings::default().config().unwrap(), Config::default());
    assert!(open.anonymous);
    assert_eq!((open.namespaces, open.channels), (default.namespaces, default.channels));
    assert_eq!(
        (open.limits, open.timeouts.shutdown),
        (default.limits, default.timeouts.shutdown)
    );
}

#[test]
fn errors_name_the_line_and_the_nearest_key() {
    check(
        "name = 'a'\nb =",
        "line 2: string values must be quoted, expected literal string",
    );
    check("lisen = 'x'", "line 1: unknown key lisen; did you mean listen?");
    check("[limit]\nx = 1", "line 1: unknown key limit; did you mean limits?");
    check("\n\nteleport = 1", "line 3: unknown key teleport");
    check(
        "[namespaces.chat]\n\n\nhistroy_size = 1",
        "line 4: unknown key namespaces.chat.histroy_size; did you mean namespaces.chat.history_size?",
    );
    check(
        "[limits]\nconnections_max = -1",
        "line 2: limits.connections_max must be a number",
    );
    check(
        "[channels]\nallow_publish = 'all'",
        "line 2: channels.allow_publish must be \"nobody\", \"anyone\", \"authenticated\", \"subscriber\" or \"token\"",
    );
    check("limits = 5", "line 1: limits must be a table: [limits]");
    check(
        "[namespaces]\nchat = 5",
        "line 2: namespaces.chat must be a table: [namespaces.chat]",
    );
    check(
        "[namespaces.'a:b']",
        "line 1: the namespace \"a:b\" must have 1 to 64 letters, digits, `-`, `_` and `.`",
    );
    check(
        "allow_origins = ['https://a.example', 'nonsense']",
        "line 1: allow_origins has \"nonsense\": not an origin: use scheme://host or scheme://host:port without a path, or null",
    );
    check(
        "name = 'x'\ntls_cert = 'x.pem'",
        "line 2: tls_cert needs both tls_cert and tls_key",
    );
    check(
        "[limits]\nqueue_bytes_max = '1 KB'\nmessage_size_max = 'x'",
        "line 3: limits.message_size_max must be a number of bytes, or a size such as \"64KiB\"",
    );
    check(
        "[timeouts]\ndrain = '5s'",
        "line 2: timeouts.drain must not be set: it is derived from drain, which is not in a table",
    );
    check(
        "[tokens]\nissuer = 'x'\nrsa_public_key = 'nonsense'",
        "line 3: tokens.rsa_public_key is not an RSA public key of 2048 to 8192 bits in PEM (-----BEGIN PUBLIC KEY-----)",
    );
    check(
        "[subscription_tokens]\njwks_url = 'ftp://x/'",
        "line 2: subscription_tokens.jwks_url has neither https:// nor http://",
    );
    check(
        "[hooks]\nrpc_url = 'x'",
        "line 2: hooks.rpc_url has neither https:// nor http://",
    );
    check(
        "[namespaces.chat]\nhistory_size = 1\nsubscribe_hook = true",
        "line 3: namespaces.chat.subscribe_hook needs hooks.subscribe_url, which is not set",
    );
    check(
        "[channels]\npublish_hook = true",
        "line 2: channels.publish_hook needs hooks.publish_url, which is not set",
    );
    check(
        "[timeouts]\nping_interval = '5s'",
        "line 2: timeouts.pong is 8s, but must be shorter than timeouts.ping_interval, 5s",
    );
    check(
        "[limits]\nclient_info_size_max = '600KiB'",
        "line 2: limits.publication_size_max is 65536, but must be at most half of limits.queue_bytes_max less \
         limits.client_info_size_max and 2048, 0",
    );
    check("api_keys = ['']", "line 1: api_keys must not contain an empty key");
    check(
        "[timeouts]\npong = '30s'",
        "line 2: timeouts.pong is 30s, but must be shorter than timeouts.ping_interval, 25s",
    );
}

#[track_caller]
fn check_all(file: &str, expect: &[&str]) {
    let (settings, errors) = Settings::read(file);
    let errors = settings.check(errors).expect_err("no error");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expect);
}

#[test]
fn the_check_lists_every_error_in_the_order_of_the_lines() {
    check_all(
        "lisen = 'x'\n\
         allow_origins = ['nonsense']\n\
         tls_cert = 'x.pem'\n\
         api_keys = ['']\n\
         [limits]\n\
         connections_max = 0\n\
         conections_max = 5\n\
         message_size_max = 'x'\n\
         [timeouts]\n\
         pong = '30s'\n\
         [tokens]\n\
         rsa_public_key = 'x'\n\
         ecdsa_public_key = 'x'\n\
         jwks_url = 'x'\n\
         [hooks]\n\
         rpc_url = 'x'\n\
         refresh_url = 'y'\n\
         [namespaces.a]\n\
         publication_rate_max = 0\n\
         publish_hook = true\n\
         [namespaces.'b:c']",
        &[
            "line 1: unknown key lisen; did you mean listen?",
            "line 2: allow_origins has \"nonsense\": not an origin: use scheme://host or scheme://host:port without a path, or null",
            "line 3: tls_cert needs both tls_cert and tls_key",
            "line 4: api_keys must not contain an empty key",
            "line 6: limits.connections_max is 0, but must be at least 1",
            "line 7: unknown key limits.conections_max; did you mean limits.connections_max?",
            "line 8: limits.message_size_max must be a number of bytes, or a size such as \"64KiB\"",
            "line 10: timeouts.pong is 30s, but must be shorter than timeouts.ping_interval, 25s",
            "line 12: tokens.rsa_public_key is not an RSA public key of 2048 to 8192 bits in PEM (-----BEGIN PUBLIC KEY-----)",
            "line 13: tokens.ecdsa_public_key is not a public key on P-256 or P-384 in PEM (-----BEGIN PUBLIC KEY-----)",
            "line 14: tokens.jwks_url has neither https:// nor http://",
            "line 16: hooks.rpc_url has neither https:// nor http://",
            "line 17: hooks.refresh_url has neither https:// nor http://",
            "line 19: namespaces.a.publication_rate_max is 0, but must be at least 1; allow_publish = \"nobody\" forbids \
             publishing",
            "line 20: namespaces.a.publish_hook needs hooks.publish_url, which is not set",
            "line 21: the namespace \"b:c\" must have 1 to 64 letters, digits, `-`, `_` and `.`",
        ],
    );
}

#[test]
fn errors_that_follow_from_others_are_left_out() {
    // The hook has an address: its key has a mistake.
    check_all(
        "[hooks]\npublish_ulr = 'http://127.0.0.1/'\n[channels]\npublish_hook = true",
        &["line 2: unknown key hooks.publish_ulr; did you mean hooks.publish_url?"],
    );
    check_all(
        "[timeouts]\nping_interval = '0s'",
        &["line 2: timeouts.ping_interval is 0, but must be greater than 0"],
    );
    check_all(
        "[namespaces.a]\nhistory_size = 'many'\nrecovery = true",
        &["line 2: namespaces.a.history_size must be a number"],
    );
    // What follows a syntax error may have been read wrongly.
    check_all(
        "lisen = 'x'\nname =\nnonsense = 1\n[limits]\nqueue_bytes_max = 1\ndata == 1",
        &[
            "line 1: unknown key lisen; did you mean listen?",
            "line 2: string values must be quoted, expected literal string",
            "line 6: extra `=`, expected nothing",
        ],
    );
}

#[test]
fn options_that_need_a_history_are_errors_without_one() {
    for option in [
        "recovery",
        "positioning",
        "force_recovery",
        "force_positioning",
        "delta",
        "cache",
    ] {
        for zero in ["history_size = 0", "history_size = 5\nhistory_ttl = '0s'"] {
            let settings = Settings::parse(&format!("[namespaces.a]\n{option} = true\n{zero}")).unwrap();
            let name = if zero.contains("ttl") {
                "history_ttl"
            } else {
                "history_size"
            };
            assert_eq!(
                settings.config().unwrap_err().to_string(),
                format!("line 2: namespaces.a.{option} needs a history, but namespaces.a.{name} is 0")
            );
        }
        let off = Settings::parse(&format!("[channels]\n{option} = false")).unwrap();
        off.config().unwrap();
    }
    // By default they have no effect.
    Settings::parse("[channels]\nhistory_size = 0")
        .unwrap()
        .config()
        .unwrap();
}

#[test]
fn a_path_is_not_empty_in_a_file() {
    check("data = ''", "line 1: data must be a non-empty path");
    check("tls_cert = ''", "line 1: tls_cert must be a non-empty path");
}

#[test]
fn variables_override_the_file() {
    let mut settings = Settings::parse("listen = 'a:1'\n[namespaces.my-chat]\nhistory_size = 3").unwrap();
    let variables = [
        ("SOCKEYE_LISTEN", "b:2"),
        ("SOCKEYE_API_KEY", "one,two"),
        ("SOCKEYE_TOKEN_HMAC_SECRET", "secret"),
        ("SOCKEYE_LIMITS_CONNECTIONS_MAX", "7"),
        ("SOCKEYE_NAMESPACES_MY_CHAT_HISTORY_SIZE", "4"),
        ("SOCKEYE_NAMESPACES_NEWS_ALLOW_SUBSCRIBE", "anyone"),
        ("SOCKEYE_SUBSCRIPTION_TOKENS_ISSUER", "me"),
        ("OTHER", "x"),
        // The program and tests read these.
        ("SOCKEYE_CONFIG", "x"),
        ("SOCKEYE_LOG", "debug"),
        ("SOCKEYE_BLESS", "1"),
        ("SOCKEYE_TEST_PATIENCE", "2"),
        // Kubernetes and Docker set these for a service named sockeye or sockeye-api.
        ("SOCKEYE_SERVICE_HOST", "10.0.0.1"),
        ("SOCKEYE_SERVICE_PORT", "80"),
        ("SOCKEYE_SERVICE_PORT_HTTP", "80"),
        ("SOCKEYE_PORT", "tcp://10.0.0.1:80"),
        ("SOCKEYE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("SOCKEYE_API_SERVICE_HOST", "10.0.0.1"),
        ("SOCKEYE_API_PORT_80_TCP", "tcp://10.0.0.1:80"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    settings.apply_environment(variables).unwrap();
    let config = settings.config().unwrap();
    assert_eq!(settings.program.listen, "b:2");
    assert_eq!(config.api_keys, ["one".into(), "two".into()]);
    assert_eq!(config.tokens.hmac_secret, Some("secret".into()));
    assert_eq!(config.limits.connections_max, 7);
    assert_eq!(config.namespaces["my-chat"].history_size, 4);
    assert_eq!(config.namespaces["news"].allow_subscribe, Access::Anyone);
    assert_eq!(config.subscription_tokens.unwrap().issuer.as_deref(), Some("me"));

    for (name, value, expect) in [
        (
            "SOCKEYE_LIMITS_CONNECTIONS_MAX",
            "many",
            "SOCKEYE_LIMITS_CONNECTIONS_MAX: limits.connections_max must be a number",
        ),
        (
            "SOCKEYE_LIMITS_CONECTIONS_MAX",
            "8",
            "unknown variable SOCKEYE_LIMITS_CONECTIONS_MAX; did you mean SOCKEYE_LIMITS_CONNECTIONS_MAX?",
        ),
        (
            "SOCKEYE_PORT",
            "8080",
            "unknown variable SOCKEYE_PORT; `sockeye config default` lists all options",
        ),
        (
            "SOCKEYE_TOKENS_HMAC_SECRT",
            "x",
            "unknown variable SOCKEYE_TOKENS_HMAC_SECRT; did you mean SOCKEYE_TOKENS_HMAC_SECRET?",
        ),
    ] {
        let error = settings
            .apply_environment([(name.to_owned(), value.to_owned())])
            .unwrap_err();
        assert_eq!(error.to_string(), expect);
    }
}

#[test]
fn an_error_of_a_variable_has_no_line_of_the_file() {
    let mut settings = Settings::parse("[timeouts]\npong = '5s'").unwrap();
    let variable = ("SOCKEYE_TIMEOUTS_PONG".to_owned(), "30s".to_owned());
    settings.apply_environment([variable]).unwrap();
    let error = settings.config().unwrap_err();
    assert_eq!(error.line(), None, "{error}");
}

#[test]
fn warnings_have_the_line_of_the_file() {
    let settings = Settings::parse(
        "insecure_api = true\n[tokens]\nhmac_secret = 'short'\ninsecure_skip_signature_check = true\n\
         [namespaces.a]\nhistory_size = 5000",
    )
    .unwrap();
    let warnings = settings.warnings(&settings.config().unwrap());
    let starts = [
        "line 1: insecure_api is true",
        "line 4: tokens.insecure_skip_signature_check is true",
        "line 3: tokens.hmac_secret has 5 bytes",
        "line 6: namespaces.a.history_size is 5000",
    ];
    assert_eq!(warnings.len(), starts.len());
    for (warning, start) in warnings.iter().zip(starts) {
        assert!(warning.to_string().starts_with(start), "{warning}");
    }
}

#[test]
fn the_namespaces_of_the_market_belong_to_the_demonstrations() {
    let names = |text: &str| {
        let config = Settings::parse(text).unwrap().config().unwrap();
        config.namespaces.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(names("demos = true"), ["market_drop_oldest", "market_latest"]);
    assert_eq!(names(""), Vec::<String>::new());
    let file = Settings::default().to_toml();
    assert!(file.contains("[namespaces.market]"), "{file}");
    assert!(!file.contains("market_"), "{file}");
    assert!(!file.contains("shutdown = "), "{file}");
}

#[test]
fn every_option_is_a_variable() {
    let settings = Settings::default();
    for (table, options) in settings.tables() {
        for option in options.options() {
            let path = if table.is_empty() {
                option.name.to_owned()
            } else {
                format!("{table}.{}", option.name)
            };
            let Some(value) = options.get(option.name) else {
                continue;
            };
            let value = value.trim_matches(['"', '[', ']']).to_owned();
            let name = format!("SOCKEYE_{}", path.to_ascii_uppercase().replace(['.', '-'], "_"));
            let mut changed = settings.clone();
            assert_eq!(changed.apply_environment([(name.clone(), value)]), Ok(()), "{name}");
            assert_eq!(changed, settings, "{name}");
        }
    }
}

#[test]
fn a_variable_sets_every_option_of_a_namespace_that_the_file_does_not_have() {
    let example = crate::config::NamespaceOptions {
        publication_size_max: Some(1024),
        publication_rate_max: Some(5),
        ..crate::config::NamespaceOptions::open()
    };
    for option in example.options() {
        let value = example
            .get(option.name)
            .unwrap_or_else(|| panic!("{} has no example", option.name));
        let variable = format!("SOCKEYE_NAMESPACES_NEWS_{}", option.name.to_ascii_uppercase());
        let mut settings = Settings::closed();
        let applied = settings.apply_environment([(variable.clone(), value.trim_matches('"').to_owned())]);
        assert_eq!(applied, Ok(()), "{variable}");
        let names: Vec<_> = settings.namespaces.keys().collect();
        assert_eq!(names, ["news"], "{variable}");
        assert_eq!(settings.namespaces["news"].get(option.name), Some(value), "{variable}");
    }
}

#[test]
fn the_default_file_has_the_settings_without_a_file() {
    let file = Settings::default().to_toml();
    let mut settings = Settings::parse(&file).unwrap_or_else(|error| panic!("{error}\n{file}"));
    settings.lines.clear();
    assert_eq!(settings, Settings::default());
}

#[test]
fn changes_are_listed_without_secrets() {
    let old = "api_keys = ['old']\nengine = 'redis://old'\n[limits]\nconnections_max = 5\n[console]\npassword='old'\n[namespaces.a]\n\
               [subscription_tokens]\nhmac_secret='old'";
    let old = Settings::parse(old).unwrap();
    let new = "api_keys = ['new']\nengine = 'redis://new'\n[limits]\nconnections_max = 6\n[console]\npassword='new'\n[namespaces.b]\n\
               [tokens]\nhmac_secret='new'\n[subscription_tokens]\nhmac_secret='new'";
    let new = Settings::parse(new).unwrap();
    let changes = old.changes(&new);
    for expect in [
        "api_keys: changed",
        "limits.connections_max: 5 -> 6",
        "added [namespaces.b]",
        "removed [namespaces.a]",
        "tokens.hmac_secret: unset -> \"...\"",
        "subscription_tokens.hmac_secret: changed",
        "engine: changed",
        "console.password: changed",
    ] {
        assert!(changes.contains(&expect.to_owned()), "{expect}: {changes:?}");
    }
    assert!(!format!("{changes:?}").contains("new"), "{changes:?}");
    assert_eq!(old.changes(&old), Vec::<String>::new());
}

/// `SOCKEYE_BLESS=1` writes the page.
#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/server/settings.md");
    let page = Settings::reference();
    if std::env::var_os("SOCKEYE_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let current = std::fs::read_to_string(path).unwrap_or_default();
    assert!(current == page, "{path} is not current; run with SOCKEYE_BLESS=1");
    for name in ["[`", "](", "crate::"] {
        assert!(!page.contains(name), "{name}");
    }
}

#[test]
fn the_log_has_a_folder_and_a_policy() {
    let log = |text: &str| Settings::parse(text)?.config().map(|config| config.journal);
    assert_eq!(log("fsync = \"always\"").unwrap(), None);
    let mut expected = crate::JournalConfig::new("/data");
    assert_eq!(log("data = \"/data\"").unwrap(), Some(expected.clone()));
    expected.fsync = crate::Fsync::Always;
    assert_eq!(
        log("data = \"/data\"\nfsync = \"always\"").unwrap(),
        Some(expected.clone())
    );
    expected.repair = crate::JournalRepair::KeepValid;
    let repair = "data = \"/data\"\nfsync = \"always\"\nrepair_journal = true";
    assert_eq!(log(repair).unwrap(), Some(expected));
    let error = log("data = \"/data\"\nfsync = \"sometimes\"").unwrap_err();
    assert!(error.to_string().starts_with("line 2: fsync"), "{error}");
}

#[test]
fn the_unit_and_the_image_keep_a_log_that_an_engine_replaces() {
    let data = ("SOCKEYE_DATA".to_owned(), "/var/lib/sockeye".to_owned());
    for file in [
        include_str!("../../../../docs/server/sockeye.service"),
        include_str!("../../../../Dockerfile"),
    ] {
        assert!(file.contains(&format!("{}={}\n", data.0, data.1)), "{file}");
        assert!(file.contains("SOCKEYE_DATA= "), "{file}");
    }
    let config = |variables: &[(String, String)]| {
        let mut settings = Settings::parse("engine = 'redis://127.0.0.1'").unwrap();
        settings.apply_environment(variables.iter().cloned()).unwrap();
        settings.config()
    };
    assert!(config(std::slice::from_ref(&data)).is_err());
    // A later value of the same variable replaces an earlier one.
    let none = (data.0, String::new());
    assert!(config(&[none]).is_ok());
}

/// The file of the quick start passes the check, and systemd accepts the unit where systemd is installed.
#[test]
fn the_files_of_the_documentation_are_valid() {
    let mut count = 0;
    for page in [
        include_str!("../../../../docs/server/README.md"),
        include_str!("../../../../docs/server/security.md"),
    ] {
        for block in page.split("```toml\n").skip(1) {
            let (file, _) = block.split_once("```").unwrap();
            Settings::parse(file).and_then(|settings| settings.config()).unwrap();
            count += 1;
        }
    }
    assert!(count >= 3, "{count} files");

    let unit = include_str!("../../../../docs/server/sockeye.service");
    // The user of DynamicUser=yes could read neither a file with secrets nor the key of the certificate.
    assert!(unit.contains("\nUser=sockeye\nGroup=sockeye\n") && !unit.contains("DynamicUser"));
    // The program is not installed here.
    let unit = unit.replace("/usr/local/bin/sockeye", "/bin/true");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sockeye.service");
    std::fs::write(&path, unit).unwrap();
    let verify = std::process::Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    if let Ok(verify) = verify {
        assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
    }
}
