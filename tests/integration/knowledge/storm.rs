//! 100,000 rows while the database dies, its disk is full, and the operator is killed again and again.
//!
//! The operator is this test's program once more, selected by [`WORK`]: it uses the library as the operator does,
//! and writes down each row before it hands it over, with one `write` that no SIGKILL takes back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use panacea::knowledge::{HealthRow, Ledger, LedgerConfig, LedgerOptions, Row, SpoolOptions, row_id};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio_util::sync::CancellationToken;

use super::place::{Place, brain, health, time};
use super::spool;
use crate::postgres::PostgresServer;

/// Calls of `record`, each of two rows.
const CALLS: u32 = 5_000;
const LOOKS: u32 = 90_000;
/// So small that looks have to make room in each outage, and large enough for the healing rows of one.
const SPOOL_BYTES: u64 = 6 * 1024 * 1024;
/// Rows that the operator has in memory at most when it offers the next one: two batches, so that the queue never has to drop
/// any, and a kill takes few.
const IN_MEMORY: u64 = 1000;
const SEED: u64 = 7;
const LIMIT: Duration = Duration::from_secs(150);

/// `URL FOLDER`: the operator's database, and its folder.
const WORK: &str = "PANACEA_TEST_STORM";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    KillOperator,
    KillDatabase,
    StartDatabase,
    FillDisk,
    FreeDisk,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_healing_row_is_there_once_in_order_and_every_lost_look_is_counted() {
    let begun = Instant::now();
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.unwrap();
    let place = Place::Postgres(server.new_database().await);
    let disk = SmallDisk::new();
    disk.use_for(&place).await;
    let folder = tempfile::tempdir().unwrap();
    let mut operator = Operator::new(&place, folder.path());

    let (mut lives, mut ends) = (Vec::new(), Vec::new());
    for (percent, event) in events() {
        let until = u64::from(CALLS + LOOKS) * percent / 100;
        operator.wait_for(until, begun);
        match event {
            Event::KillDatabase => server.kill(),
            Event::StartDatabase => tokio::task::block_in_place(|| server.start_again()),
            Event::FillDisk => disk.fill(&place).await,
            Event::FreeDisk => disk.free(&place).await,
            Event::KillOperator => {
                operator.kill();
                lives.push(operator.looks());
                ends.push(End::of(folder.path()).await);
                operator.start();
            }
        }
    }
    operator.wait_for_end(begun);
    lives.push(operator.looks());
    let end = End::of(folder.path()).await;

    // Healing rows: all, once, in the order of recording, which the other owner's column shows.
    let order = place.texts("SELECT id || '' FROM unified_brain ORDER BY arrived").await;
    let expected: Vec<String> = (1..=CALLS).flat_map(healing).map(|row| row.id().to_string()).collect();
    assert_eq!(order.len(), expected.len());
    let strayed = order.iter().zip(&expected).position(|(is, should)| is != should);
    assert_eq!(strayed, None, "the place of the first one that is not in order");

    // Looks: what is missing was counted, or was among the last ones that an operator had offered when it was killed.
    let written: BTreeSet<u32> = place
        .texts("SELECT metrics ->> 'number' FROM ai_proactive_health")
        .await
        .iter()
        .map(|number| number.parse::<f64>().unwrap() as u32)
        .collect();
    let (mut in_memory, mut first) = (0, 0);
    for (offered, end) in lives.iter().zip(&ends) {
        let reached = |number: &u32| written.contains(number) || end.looks.contains(number);
        let last = (first..*offered).rev().find(reached).map_or(first, |last| last + 1);
        assert!(u64::from(offered - last) <= IN_MEMORY + 1, "{} were in memory", offered - last);
        in_memory += u64::from(offered - last);
        first = *offered;
    }
    let missing = u64::from(LOOKS) - written.len() as u64;
    let mut report = format!("{} s: {missing} of {LOOKS} looks lost: ", begun.elapsed().as_secs());
    write!(report, "{} counted, {in_memory} in memory at {} kills", end.dropped, ends.len()).unwrap();
    println!("{report}; disk full by {}", disk.how());
    assert_eq!(*lives.last().unwrap(), LOOKS);
    assert_eq!(missing, end.dropped + in_memory, "{report}");
    let counter = std::fs::read_to_string(folder.path().join("dropped")).unwrap();
    assert_eq!(counter, end.dropped.to_string(), "what the operator counts is what the spool keeps");
    assert!(end.looks.is_empty() && end.healing == 0, "nothing is left in the spool");
    assert!(end.dropped > 1000, "there was too little to make room for: {report}");
    assert!(ends.iter().any(|end| end.healing > 0), "no kill met healing rows in the spool");
    assert!(disk.was_felt(&server), "the full disk was not met");
}

/// When what happens, by the part of all rows that was handed over.
fn events() -> Vec<(u64, Event)> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut events: Vec<(u64, Event)> = vec![
        (8, Event::KillDatabase),
        (30, Event::StartDatabase),
        (38, Event::FillDisk),
        (55, Event::FreeDisk),
        (63, Event::KillDatabase),
        (80, Event::StartDatabase),
    ];
    let kills = random.choose_multiple(2..95_u64, 10);
    events.extend(kills.into_iter().map(|percent| (percent, Event::KillOperator)));
    events.sort_unstable_by_key(|(percent, event)| (*percent, *event));
    events
}

/// The rows of one Remediation: an approval and an action.
fn healing(number: u32) -> Vec<Row> {
    let mut approval = brain(number);
    approval.id = row_id(&format!("uid-{number}"), "approval");
    vec![approval.into(), brain(number).into()]
}

fn look(number: u32) -> HealthRow {
    let at = time("2026-11-22T10:00:00Z") + SignedDuration::from_millis(i64::from(number));
    let mut row = health("web", "api", at, Some(50.0));
    row.metrics = [("number".to_owned(), f64::from(number))].into();
    row
}

/// Not a separate test: the operator of the storm, when [`WORK`] says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_of_the_storm() {
    let Ok(work) = std::env::var(WORK) else { return };
    let (url, folder) = work.split_once(' ').unwrap();
    let folder = Path::new(folder);
    let log = File::options().append(true).open(folder.join("log")).unwrap();
    let (calls, looks) = progress(&std::fs::read_to_string(folder.join("log")).unwrap());
    let spool = SpoolOptions { folder: folder.to_owned(), max_bytes: SPOOL_BYTES };
    let config = LedgerConfig::Postgres(SecretString::from(url.to_owned()));
    let shutdown = CancellationToken::new();
    let (ledger, task) = Ledger::start(LedgerOptions { spool: Some(spool), ..config.into() }, shutdown.clone());
    tokio::join!(record(&ledger, &log, calls), offer(&ledger, &log, looks));
    let stats = ledger.stats();
    while stats.rows_waiting() + stats.healing_spooled() + stats.health_spooled() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::write(folder.join("dropped"), stats.rows_dropped().to_string()).unwrap();
    shutdown.cancel();
    task.await.unwrap();
}

async fn record(ledger: &Ledger, mut log: &File, done: u32) {
    for number in done + 1..=CALLS {
        while ledger.record(healing(number)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // From here on nobody records it again: written or spooled, it is the ledger's.
        log.write_all(b"R\n").unwrap();
        // The looks are not to be left behind.
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

async fn offer(ledger: &Ledger, mut log: &File, done: u32) {
    for number in done..LOOKS {
        while ledger.stats().rows_waiting() >= IN_MEMORY {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        log.write_all(b"L\n").unwrap();
        ledger.offer(look(number));
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// How many calls of `record` came back, and how many looks were offered.
fn progress(log: &str) -> (u32, u32) {
    let count = |what: &str| log.lines().filter(|line| *line == what).count() as u32;
    (count("R"), count("L"))
}

/// The operator's process, one life after the other.
struct Operator {
    work: String,
    log: PathBuf,
    child: Child,
}

impl Operator {
    fn new(place: &Place, folder: &Path) -> Self {
        let Place::Postgres(url) = place else { panic!("a storm is for PostgreSQL") };
        let log = folder.join("log");
        File::create(&log).unwrap();
        let work = format!("{url} {}", folder.display());
        let child = Self::spawn(&work);
        Self { work, log, child }
    }

    fn spawn(work: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "knowledge::storm::the_operator_of_the_storm", "--nocapture"])
            .env(WORK, work)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn start(&mut self) {
        self.child = Self::spawn(&self.work);
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until so many rows were handed over in all lives. A line is two bytes.
    fn wait_for(&mut self, lines: u64, begun: Instant) {
        while std::fs::metadata(&self.log).unwrap().len() < 2 * lines {
            assert!(begun.elapsed() < LIMIT, "{:?} rows after {LIMIT:?}", self.progress());
            assert!(self.child.try_wait().unwrap().is_none(), "the operator ended unexpectedly");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_for_end(&mut self, begun: Instant) {
        let status = loop {
            assert!(begun.elapsed() < LIMIT, "{:?} rows after {LIMIT:?}", self.progress());
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(status.success(), "{status}");
    }

    fn progress(&self) -> (u32, u32) {
        progress(&std::fs::read_to_string(&self.log).unwrap())
    }

    fn looks(&self) -> u32 {
        self.progress().1
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The entries that one operator process left in the spool.
struct End {
    looks: BTreeSet<u32>,
    healing: i64,
    dropped: u64,
}

impl End {
    async fn of(folder: &Path) -> Self {
        let mut spool = spool::open(folder).await;
        let looks = "SELECT json_extract(CAST(payload AS TEXT), '$.health.metrics.number') FROM entries WHERE kind = 1";
        let looks: Vec<f64> = sqlx::query_scalar(looks).fetch_all(&mut spool).await.unwrap();
        let one = async |spool: &mut sqlx::SqliteConnection, sql: &'static str| -> i64 {
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(spool).await.unwrap()
        };
        let healing = one(&mut spool, "SELECT count(*) FROM entries WHERE kind <> 1").await;
        let dropped = one(&mut spool, "SELECT value FROM counters WHERE name = 'dropped'").await;
        spool.close().await.unwrap();
        Self { looks: looks.into_iter().map(|number| number as u32).collect(), healing, dropped: dropped as u64 }
    }
}

/// The disk of the tables: a small one of their own where we may mount one, so that it really is full; otherwise a trigger
/// raises what the server raises for a full one.
struct SmallDisk {
    folder: Option<PathBuf>,
    watchdog: Option<Child>,
}

const DISK_BYTES: u64 = 512 * 1024 * 1024;

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("panacea-disk-").tempdir().unwrap().keep();
        let size = format!("size={DISK_BYTES},mode=0777");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            std::fs::remove_dir(&folder).unwrap();
            return Self { folder: None, watchdog: None };
        }
        // However this process ends, the disk goes with it.
        let watchdog = Command::new("sh")
            .args(["-c", r#"cat >/dev/null; umount -l "$0"; rmdir "$0""#])
            .arg(&folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { folder: Some(folder), watchdog: Some(watchdog) }
    }

    /// The tables are made by another owner, with a column that shows the order in which rows arrived.
    async fn use_for(&self, place: &Place) {
        if let Some(folder) = &self.folder {
            let tables = folder.join("tables");
            std::fs::create_dir(&tables).unwrap();
            std::fs::set_permissions(&tables, std::fs::Permissions::from_mode(0o777)).unwrap();
            PostgresServer::own(&tables);
            place.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", tables.display())).await;
            let Place::Postgres(url) = place else { unreachable!() };
            let database = url.rsplit('/').next().unwrap().split('?').next().unwrap();
            place.execute(&format!("ALTER ROLE ALL IN DATABASE {database} SET default_tablespace = small")).await;
        }
        place.start().stop_when_available().await;
        place.execute("ALTER TABLE unified_brain ADD COLUMN arrived bigserial").await;
        place
            .execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$",
            )
            .await;
    }

    async fn fill(&self, place: &Place) {
        match &self.folder {
            Some(folder) => {
                let mut filler = File::create(folder.join("filler")).unwrap();
                while filler.write_all(&[0; 4096]).is_ok() {}
            }
            None => {
                for table in ["unified_brain", "ai_proactive_health"] {
                    let trigger =
                        format!("CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()");
                    place.execute(&trigger).await;
                }
            }
        }
    }

    async fn free(&self, place: &Place) {
        match &self.folder {
            Some(folder) => std::fs::remove_file(folder.join("filler")).unwrap(),
            None => {
                for table in ["unified_brain", "ai_proactive_health"] {
                    place.execute(&format!("DROP TRIGGER full_disk ON {table}")).await;
                }
            }
        }
    }

    fn was_felt(&self, server: &PostgresServer) -> bool {
        server.log().contains("No space left on device")
    }

    fn how(&self) -> &'static str {
        if self.folder.is_some() { "a small tmpfs" } else { "a trigger (nothing can be mounted here)" }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}
