//! The address of a PostgreSQL server, its credentials, and the secrets in both: of a component, and of the ledger.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

const FORM: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
const SOCKET: &str = "names a socket as its host; write a name or an address";

fn is_mode(option: &str) -> bool {
    matches!(option, "sslmode" | "ssl-mode")
}

fn is_file(option: &str) -> bool {
    matches!(option, "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key")
}

/// Whether sqlx reads this option of a URL. sqlx logs the others with their values, which may be a misspelt password, so
/// they are removed before.
fn is_known(option: &str) -> bool {
    is_mode(option)
        || is_file(option)
        || matches!(option, "statement-cache-capacity" | "host" | "hostaddr" | "port" | "dbname" | "user" | "password")
        || option == "options"
        || option.starts_with("options[")
}

/// The application_name of the operator's sessions in pg_stat_activity.
pub const APPLICATION: &str = "panacea";

/// How a server is reached.
#[derive(Clone)]
pub struct Address {
    pub options: PgConnectOptions,
    /// Host, port, database and user, for messages; no password.
    pub place: String,
    /// The password in each form that a text may hold.
    secrets: Vec<SecretString>,
    /// The URL or Secret has an sslmode.
    has_mode: bool,
}

impl Address {
    /// Of `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`.
    ///
    /// # Errors
    /// The predicate of a sentence about "the database URL", without any part of the URL.
    pub fn from_url(url: &SecretString) -> Result<Self, String> {
        Self::parsed(url).map(|(_, address)| address)
    }

    fn parsed(url: &SecretString) -> Result<(Url, Self), String> {
        let url = Url::parse(url.expose_secret()).map_err(|_| {
            format!("cannot be parsed; write {FORM}, with special characters of the password percent-encoded")
        })?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("does not begin with postgres://".to_owned());
        }
        // `postgres://user:12/34@host/db`: a password that was not encoded becomes a part of the path, and then of messages.
        if url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|query| query.contains('@'))
        {
            return Err(
                "has an @ or # after its host; percent-encode the special characters of the password".to_owned()
            );
        }
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut secrets: Vec<String> =
            pairs.iter().filter(|(key, _)| key == "password").map(|(_, value)| value.clone()).collect();
        if let Some(encoded) = url.password() {
            secrets.push(encoded.to_owned());
            // Decodes %XX as forms do, without their two other special characters.
            let form = encoded.replace('+', "%2B").replace('&', "%26");
            secrets.extend(url::form_urlencoded::parse(form.as_bytes()).map(|(decoded, _)| decoded.into_owned()));
        }
        let mut known = url.clone();
        if pairs.iter().any(|(key, _)| !is_known(key)) {
            tracing::warn!("ignoring unknown options of the database URL");
            known.query_pairs_mut().clear().extend_pairs(pairs.iter().filter(|(key, _)| is_known(key)));
        }
        let options = <PgConnectOptions as sqlx::ConnectOptions>::from_url(&known)
            .map_err(|_| "has an option with a value that is not valid (sslmode, port, hostaddr, …)".to_owned())?
            .application_name(APPLICATION);
        Ok((url, Self::new(options, secrets, pairs.iter().any(|(key, _)| is_mode(key)))))
    }

    /// Of a Secret's keys, as database operators write them: `uri` or `url`, or `host`, `port`, `dbname`, `user` or
    /// `username`, `password`, `sslmode`.
    ///
    /// # Errors
    /// The predicate of a sentence about the Secret, without any value.
    pub fn from_keys(keys: &BTreeMap<String, String>) -> Result<Self, String> {
        let one_of = |names: &[&str]| names.iter().find_map(|name| keys.get(*name)).map(|value| value.trim());
        if let Some(url) = one_of(&["uri", "url"]) {
            return Self::for_others(&SecretString::from(url)).map_err(|why| format!("has a URL that {why}"));
        }
        let required = |names: &[&str]| {
            let missing = || format!("has no key {}, and neither uri nor url", names.join(" or "));
            one_of(names).filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        let (host, user) = (required(&["host"])?, required(&["user", "username"])?);
        let (database, password) = (required(&["dbname", "database"])?, required(&["password"])?);
        if host.starts_with('/') {
            return Err(SOCKET.to_owned());
        }
        let port = one_of(&["port"]).unwrap_or("5432").parse();
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .username(user)
            .password(password)
            .database(database)
            .port(port.map_err(|_| "has a port that is not a number from 1 to 65535".to_owned())?)
            .application_name(APPLICATION);
        let mode = one_of(&["sslmode"]);
        if let Some(mode) = mode {
            let fix = "write disable, prefer, require, verify-ca or verify-full";
            let mode = mode.parse::<PgSslMode>().map_err(|_| format!("has an sslmode that is not valid; {fix}"))?;
            options = options.ssl_mode(mode);
        }
        Ok(Self::new(options, vec![password.to_owned()], mode.is_some()))
    }

    /// Of a URL that a user of the operator wrote: it names no file, no socket and no default user of the operator.
    ///
    /// # Errors
    /// As [`Self::from_url`].
    pub fn for_others(url: &SecretString) -> Result<Self, String> {
        let (url, address) = Self::parsed(url)?;
        let has = |name: &str| url.query_pairs().any(|(key, _)| key == name);
        if let Some((file, _)) = url.query_pairs().find(|(key, _)| is_file(key)) {
            return Err(format!("names a file of the operator ({file}); name the authority in caSecretRef"));
        }
        if address.options.get_socket().is_some()
            || address.options.get_host().starts_with('/')
            || url.query_pairs().any(|(_, value)| value.starts_with('/'))
        {
            return Err(SOCKET.to_owned());
        }
        if (url.username().is_empty() && !has("user")) || !url.has_host() {
            return Err(format!("has no user or no host; write {FORM}"));
        }
        if url.password().is_some() || has("password") {
            return Ok(address);
        }
        // Not the password in the operator's environment.
        Ok(Self { options: address.options.password(""), ..address })
    }

    fn new(options: PgConnectOptions, mut secrets: Vec<String>, has_mode: bool) -> Self {
        let place = format!(
            "PostgreSQL {}:{}/{} as {}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or(options.get_username()),
            options.get_username(),
        );
        // A shorter one would mask parts of ordinary words, and is no secret.
        secrets.retain(|secret| secret.len() >= 4);
        Self { options, place, secrets: secrets.into_iter().map(SecretString::from).collect(), has_mode }
    }

    /// The same, for a server whose certificate is from this authority, in PEM.
    pub fn with_authority(mut self, pem: &SecretString) -> Self {
        self.options = self.options.ssl_root_cert_from_pem(pem.expose_secret().as_bytes().to_vec());
        if !self.has_mode {
            self.options = self.options.ssl_mode(PgSslMode::VerifyFull);
        }
        self
    }

    /// The same, for a server that may be behind a pooler: no prepared statements, and no parameter that PgBouncer refuses.
    pub fn through_poolers(mut self) -> Self {
        self.options = self.options.statement_cache_capacity(0).extra_float_digits(None);
        self
    }

    /// A text without secrets.
    pub fn clean(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "***"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Address::for_others(&SecretString::from(url)).err().unwrap()
    }

    #[test]
    fn urls_that_can_never_work_are_refused_without_being_quoted() {
        for url in [
            "not a url hunter22",
            "mysql://u:hunter22@h/db",
            "postgres://u:12/hunter22@host/db",
            "postgres://u:12#hunter22@host/db",
            "postgres://u:12?hunter22@host/db",
            "postgres://u:hunter22@h/db?sslmode=hunter22",
            "postgres://:hunter22@h/db",
        ] {
            let error = refused(url);
            assert!(!error.contains("hunter22"), "{error:?}");
        }
        assert!(Address::from_url(&SecretString::from("postgres://u:12/hunter22@host/db")).is_err());
    }

    #[test]
    fn a_url_from_a_policy_names_no_file_of_the_operator() {
        assert!(
            refused("postgres://u:p@h/db?sslrootcert=/etc/passwd")
                .contains("names a file of the operator (sslrootcert)")
        );
        assert!(refused("postgres://u:p@h/db?host=/var/run").contains("socket"));
        assert!(refused("postgres://u:p@%2Fvar%2Frun/db").contains("socket"));
    }

    #[test]
    fn the_parts_of_a_secret_are_put_together() {
        let keys = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let all = [("host", "db"), ("port", "6543"), ("dbname", "shop"), ("username", "app"), ("password", "hunter22")];
        let address = Address::from_keys(&keys(&all)).unwrap();
        assert_eq!(address.place, "PostgreSQL db:6543/shop as app");
        assert_eq!(address.clean("wrong hunter22"), "wrong ***");
        let error = Address::from_keys(&keys(&all[..4])).err().unwrap();
        assert_eq!(error, "has no key password, and neither uri nor url");
        let error = Address::from_keys(&keys(&[all.as_slice(), &[("sslmode", "yes")]].concat())).err().unwrap();
        assert!(error.contains("sslmode"), "{error}");
        let address = Address::from_keys(&keys(&[("uri", "postgres://u:hunter22@h:1/d")])).unwrap();
        assert_eq!(address.place, "PostgreSQL h:1/d as u");
    }
}
