//! Where a PostgreSQL server is, who asks, and which words about it are secret: of a component, and of the ledger.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// What sqlx understands after the `?` of a URL. It logs the others with their values, which may be a misspelt
/// password, so they are taken out before.
const URL_OPTIONS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];
/// Those that name a file.
const OF_FILES: [&str; 7] = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];

/// What our sessions are called in pg_stat_activity.
pub const APPLICATION: &str = "panacea";

/// How a server is reached.
#[derive(Clone)]
pub struct Address {
    pub options: PgConnectOptions,
    /// Host, port, database and user: what a person needs to find it, and no password.
    pub place: String,
    /// The password as it may occur in a text.
    secrets: Vec<SecretString>,
    /// Its sslmode was said.
    says_tls: bool,
}

impl Address {
    /// Of `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`.
    ///
    /// # Errors
    /// What is wrong with the URL, in words that go on after "the database URL" and quote nothing of it.
    pub fn from_url(url: &SecretString) -> Result<Self, String> {
        let mut url = Url::parse(url.expose_secret()).map_err(|_| {
            "cannot be parsed; needed is postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password percent-encoded".to_owned()
        })?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("does not begin with postgres://".to_owned());
        }
        // `postgres://user:12/34@host/db`: a password that was not encoded ends up in the path, and from there in texts.
        if url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|query| query.contains('@'))
        {
            return Err(
                "has an @ or # after its host; percent-encode the special characters of the password".to_owned()
            );
        }
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let known = |key: &str| URL_OPTIONS.contains(&key) || key.starts_with("options[");
        let mut secrets: Vec<String> = Vec::new();
        secrets.extend(pairs.iter().filter(|(key, _)| key == "password").map(|(_, value)| value.clone()));
        if let Some(encoded) = url.password() {
            secrets.push(encoded.to_owned());
            // Decodes %XX as forms do, with their two other special characters kept.
            let form = encoded.replace('+', "%2B").replace('&', "%26");
            secrets.extend(url::form_urlencoded::parse(form.as_bytes()).map(|(decoded, _)| decoded.into_owned()));
        }
        if pairs.iter().any(|(key, _)| !known(key)) {
            tracing::warn!("the database URL has options that are not known and not used");
            url.query_pairs_mut().clear().extend_pairs(pairs.iter().filter(|(key, _)| known(key)));
        }
        let options = <PgConnectOptions as sqlx::ConnectOptions>::from_url(&url)
            .map_err(|_| "has an option with a value that is not valid (sslmode, port, hostaddr, …)".to_owned())?
            .application_name(APPLICATION);
        let says_tls = pairs.iter().any(|(key, _)| matches!(key.as_str(), "sslmode" | "ssl-mode"));
        Ok(Self::new(options, secrets, says_tls))
    }

    /// Of a Secret's keys, as operators of databases write them: `uri` or `url`, or `host`, `port`, `dbname`, `user` or
    /// `username`, `password`, `sslmode`.
    ///
    /// # Errors
    /// What is missing or wrong, in words that quote no value.
    pub fn from_keys(keys: &BTreeMap<String, String>) -> Result<Self, String> {
        let one_of =
            |names: &[&str]| names.iter().find_map(|name| keys.get(*name)).map(|value| value.trim().to_owned());
        if let Some(url) = one_of(&["uri", "url"]) {
            return Self::for_others(&SecretString::from(url)).map_err(|why| format!("its URL {why}"));
        }
        let needed = |names: &[&str]| {
            let missing = || format!("has no key {}, and neither uri nor url", names.join(" or "));
            one_of(names).filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        let (host, user) = (needed(&["host"])?, needed(&["user", "username"])?);
        let (database, password) = (needed(&["dbname", "database"])?, needed(&["password"])?);
        if host.starts_with('/') {
            return Err("names a socket as its host; write a name or an address".to_owned());
        }
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&host)
            .username(&user)
            .password(&password)
            .database(&database)
            .port(5432)
            .application_name(APPLICATION);
        if let Some(port) = one_of(&["port"]) {
            let bad = |_| "has a port that is no number from 1 to 65535".to_owned();
            options = options.port(port.parse().map_err(bad)?);
        }
        let mode = one_of(&["sslmode"]);
        if let Some(mode) = &mode {
            let bad =
                |_| "has an sslmode that is none; write disable, prefer, require, verify-ca or verify-full".to_owned();
            options = options.ssl_mode(mode.parse::<PgSslMode>().map_err(bad)?);
        }
        Ok(Self::new(options, vec![password], mode.is_some()))
    }

    /// Of a URL that somebody else wrote: it names no file of ours, no socket, and says who asks.
    ///
    /// # Errors
    /// As [`Self::from_url`].
    pub fn for_others(url: &SecretString) -> Result<Self, String> {
        let address = Self::from_url(url)?;
        let parsed = Url::parse(url.expose_secret()).map_err(|_| "cannot be parsed".to_owned())?;
        if let Some(file) = parsed.query_pairs().find(|(key, _)| OF_FILES.contains(&&**key)) {
            return Err(format!(
                "names a file ({}), which would be one of the operator's; name the authority in caSecretRef",
                file.0
            ));
        }
        if address.options.get_socket().is_some()
            || address.options.get_host().starts_with('/')
            || parsed.query_pairs().any(|(_, value)| value.starts_with('/'))
        {
            return Err("names a socket as its host; write a name or an address".to_owned());
        }
        let says_who = !parsed.username().is_empty() || parsed.query_pairs().any(|(key, _)| key == "user");
        if !says_who || !parsed.has_host() {
            return Err(
                "does not say who asks, or where; needed is postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()
            );
        }
        let has_password = parsed.password().is_some() || parsed.query_pairs().any(|(key, _)| key == "password");
        // Not one of the operator's own environment.
        let options = if has_password { address.options } else { address.options.password("") };
        Ok(Self { options, ..address })
    }

    fn new(options: PgConnectOptions, mut secrets: Vec<String>, says_tls: bool) -> Self {
        let place = format!(
            "PostgreSQL {}:{}/{} as {}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or(options.get_username()),
            options.get_username(),
        );
        // Shorter ones would blank out every second word, and are no secret.
        secrets.retain(|secret| secret.len() >= 4);
        Self { options, place, secrets: secrets.into_iter().map(SecretString::from).collect(), says_tls }
    }

    /// The same, of a server whose certificate is from this authority, in PEM.
    pub fn with_authority(mut self, pem: &SecretString) -> Self {
        self.options = self.options.ssl_root_cert_from_pem(pem.expose_secret().as_bytes().to_vec());
        if !self.says_tls {
            self.options = self.options.ssl_mode(PgSslMode::VerifyFull);
        }
        self
    }

    /// The same, for a server that a pooler may stand before: no prepared statements, and no parameter that PgBouncer refuses.
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
        assert!(refused("postgres://u:p@h/db?sslrootcert=/etc/passwd").contains("names a file (sslrootcert)"));
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
