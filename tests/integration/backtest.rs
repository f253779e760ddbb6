//! `panacea backtest`, as a person runs it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tempfile::TempDir;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/foresight");

fn backtest() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panacea"));
    command.arg("backtest").stdin(Stdio::null());
    for variable in
        ["PROMETHEUS_URL", "HEAL_CPU_THRESH", "HEAL_MEMORY_THRESH", "HEAL_ERROR_THRESH", "HEAL_LATENCY_THRESH"]
    {
        command.env_remove(variable);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Must end with this code.
#[track_caller]
fn ends(mut command: Command, code: i32) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The JSON lines of these histories.
#[track_caller]
fn lines(path: &Path) -> Vec<Value> {
    let mut command = backtest();
    command.arg(path).args(["--jsonl", "-"]);
    text(&ends(command, 0).stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A history of memory that rises to its limit, a row a minute.
fn rising(rows: u32) -> String {
    let mut csv = "t,cpu_usage,memory_usage\n".to_owned();
    for row in 0..rows {
        let memory = 20.0 + f64::from(row) * 0.15 + f64::from(row * 7 % 5) * 0.1;
        csv.push_str(&format!("{},{},{memory:.2}\n", row * 60, 30 + row % 3));
    }
    csv
}

/// What standard error says of one bad file, beside a good one that is done nevertheless.
#[track_caller]
fn refuses(name: &str, content: &[u8], words: &[&str]) {
    let folder = folder(&[("good.csv", b"t,cpu_usage\n0,1\n60,2\n"), (name, content)]);
    let mut command = backtest();
    command.arg(folder.path()).args(["-o", "json"]);
    let output = ends(command, 2);
    let errors = text(&output.stderr);
    for word in words.iter().chain([&name]) {
        assert!(errors.contains(word), "{word:?} is not in {errors:?}");
    }
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["components"].as_array().unwrap().len(), 1);
    assert_eq!(summary["components"][0]["component"], "good");
    assert_eq!(summary["errors"].as_array().unwrap().len(), 1);
}

#[test]
fn a_bad_file_is_named_with_its_line_and_the_fix_and_the_others_are_done() {
    refuses("a.csv", b"cpu_usage,memory_usage\n1,2\n", &["a.csv:1", "no time column", "cpu_usage, memory_usage"]);
    refuses("a.csv", b"t,cpu_usage\n0,1\n60,much\n", &["a.csv:3", "cpu_usage is \"much\"", "write a number"]);
    refuses("a.csv", b"t,cpu_usage\n0,1\n60,1\n30,1\n", &["a.csv:4", "decreases from 60 to 30", "sort the rows by t"]);
    refuses("a.csv", b"", &["is empty", "must name the columns"]);
    refuses("a.csv", b"t,cpu_usage\n", &["no row"]);
    refuses("a.csv", b"t\n0\n", &["a.csv:1", "nothing was measured"]);
    refuses("a.csv", b"t,cpu_usage\n0,1\nt,cpu_usage\n60,1\n", &["a.csv:3", "repeats the names", "remove this line"]);
    refuses("a.csv", b"t,cpu_usage,cpu_usage\n0,1,2\n", &["a.csv:1", "two columns are named \"cpu_usage\""]);
    refuses("a.csv", b"t,,cpu_usage\n0,1,2\n", &["a.csv:1", "column 2 has no name"]);
    refuses("a.csv", b"t,cpu_usage\n0,1\n60\n", &["a.csv:3", "has 1 cells", "has 2"]);
    refuses("a.csv", b"t,cpu_usage\n0,1\n60,1,2\n", &["a.csv:3", "has 3 cells"]);
    refuses("a.csv", b"t,cpu_usage\n0,\xff\xfe\n", &["a.csv:2", "not UTF-8"]);
    refuses("a.csv", b"t,\xff\xfe\n0,1\n", &["a.csv:1", "not UTF-8"]);
    refuses("a.csv", b"t,cpu_usage\n1772359200000,1\n", &["a.csv:2", "not a time", "not milliseconds"]);
    refuses("a.csv", b"t,cpu_usage\n,1\n", &["a.csv:2", "is empty"]);
    refuses("a.csv.gz", b"t,cpu_usage\n0,1\n", &["cannot be unpacked", "must not end in .gz"]);
    let whole = gzip(rising(3000).as_bytes());
    refuses("a.csv.gz", &whole[..whole.len() / 2], &["cut short"]);
    refuses("good.csv.gz", &gzip(b"t,cpu_usage\n0,1\n"), &["good.csv", "keep one"]);
    let many: Vec<String> = (0..30).map(|place| format!("m{place}")).collect();
    refuses("a.csv", format!("t,{}\n", many.join(",")).as_bytes(), &["a.csv:1", "30 metrics"]);
    refuses("labels.csv", b"component,kind\n", &["labels.csv:1", "no column start"]);
}

#[test]
fn places_without_histories_are_named() {
    let empty = folder(&[("notes.txt", b"")]);
    for (place, words) in [(empty.path().join("missing"), "No such file"), (empty.path().to_owned(), "holds no .csv")] {
        let mut command = backtest();
        command.arg(&place);
        let errors = text(&ends(command, 2).stderr);
        assert!(errors.contains(words) && errors.contains(place.to_str().unwrap()), "{errors}");
    }
    let folder = folder(&[("a.csv", b"t,cpu_usage\n0,1\n")]);
    let mut command = backtest();
    command.arg(folder.path()).arg("--report").arg(folder.path().join("missing/r.html"));
    assert!(text(&ends(command, 2).stderr).contains("missing/r.html cannot be written"));
}

#[test]
fn arguments_that_cannot_be_used_say_how_to_write_them() {
    for (args, words) in [
        (&["x.csv", "--limit", "disk"][..], "METRIC=VALUE"),
        (&["--prometheus", "ftp://a", "--query", "a=b"], "http://"),
        (&["--prometheus", "http://a", "--query", "sum(x{a=\"b\"})"], "has no name"),
        (&["--prometheus", "http://a", "--query", "a=b", "--since", "soon"], "--since"),
        (&["--prometheus", "http://a"], "--query"),
        (&[], "DIR|FILE"),
    ] {
        let mut command = backtest();
        command.args(args);
        let errors = text(&ends(command, 2).stderr);
        assert!(errors.contains(words), "{args:?}: {errors}");
    }
}

#[test]
fn a_line_of_json_has_exactly_the_promised_fields() {
    let set = folder(&[("shop/api.csv", b"t,cpu_usage,value\n-1.5,1,2\n60,,\n120,99,\n1e10,NaN,4\n")]);
    let lines = lines(&set.path().join("shop"));
    assert_eq!(lines.len(), 3, "an empty row is no look");
    let fields: Vec<&str> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut promised = vec![
        "set",
        "component",
        "t",
        "leak",
        "probability",
        "probability_1h",
        "probability_6h",
        "time_to_failure_s",
        "health_score",
        "level",
        "confidence",
    ];
    promised.sort_unstable();
    let mut sorted = fields.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, promised);
    for line in &lines {
        assert_eq!((line["set"].as_str(), line["component"].as_str()), (Some("shop"), Some("api")));
        assert!(line["leak"].is_boolean() && line["level"].is_string() && line["confidence"].is_string());
        assert!(line["time_to_failure_s"].is_null() || line["time_to_failure_s"].is_number());
        for probability in ["probability", "probability_1h", "probability_6h"] {
            assert!((0.0..=1.0).contains(&line[probability].as_f64().unwrap()));
        }
    }
    let times: Vec<f64> = lines.iter().map(|line| line["t"].as_f64().unwrap()).collect();
    assert_eq!(times, [-1.5, 120.0, 1e10]);
    assert_eq!(lines[1]["t"].to_string(), "120");
    // One critical metric.
    assert_eq!((lines[0]["health_score"].as_u64(), lines[1]["health_score"].as_u64()), (Some(100), Some(70)));
}

#[test]
fn lines_are_in_the_order_of_set_component_and_time_whatever_is_done_at_the_same_time() {
    let long = rising(2000);
    let files = [
        ("b/z.csv", long.as_str()),
        ("b/a.csv", "t,cpu_usage\n0,1\n"),
        ("a/m.csv", &long),
        ("a/n.csv", "t,cpu_usage\n0,1\n"),
    ];
    let folder = folder(&files.map(|(name, content)| (name, content.as_bytes())));
    let key = |line: &Value| {
        let word = |name: &str| line[name].as_str().unwrap().to_owned();
        (word("set"), word("component"), line["t"].as_i64().unwrap())
    };
    let keys: Vec<_> = lines(folder.path()).iter().map(key).collect();
    assert_eq!(keys.len(), 4002);
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((keys[0].0.as_str(), keys[0].1.as_str()), ("a", "m"));
}

#[test]
fn a_gzipped_file_says_the_same_as_the_plain_one() {
    let content = rising(400);
    let plain = folder(&[("s/a.csv", content.as_bytes())]);
    let (half, rest) = content.split_at(content.len() / 2);
    // Two members, as `cat a.gz b.gz` makes.
    let members = [gzip(half.as_bytes()), gzip(rest.as_bytes())].concat();
    let zipped = folder(&[("s/a.csv.gz", &members)]);
    assert_eq!(lines(&plain.path().join("s")), lines(&zipped.path().join("s")));
}

#[test]
fn what_is_said_of_a_row_does_not_change_with_the_rows_after_it() {
    let whole = rising(600);
    let prefix: Vec<&str> = whole.lines().take(301).collect();
    let folder = folder(&[("whole/a.csv", whole.as_bytes()), ("prefix/a.csv", (prefix.join("\n") + "\n").as_bytes())]);
    let strip = |mut line: Value| {
        line["set"] = Value::Null;
        line
    };
    let whole: Vec<Value> = lines(&folder.path().join("whole")).into_iter().map(strip).collect();
    let prefix: Vec<Value> = lines(&folder.path().join("prefix")).into_iter().map(strip).collect();
    assert_eq!((whole.len(), prefix.len()), (600, 300));
    assert_eq!(whole[..300], prefix);
}

#[test]
fn dates_a_byte_order_mark_and_windows_line_ends_are_read() {
    let folder = folder(&[(
        "s/a.csv",
        b"\xef\xbb\xbfTime,timestamp,latency_ms\r\n1,2026-03-01T10:00:00Z,5\r\n2,2026-03-01 10:01:00,6\r\n",
    )]);
    let times: Vec<_> = lines(&folder.path().join("s")).iter().map(|line| line["t"].as_i64()).collect();
    assert_eq!(times, [Some(1_772_359_200), Some(1_772_359_260)]);
}

#[test]
fn a_million_rows_need_little_memory() {
    let folder = folder(&[]);
    let file = folder.path().join("a.csv.gz");
    let mut writer = GzEncoder::new(fs::File::create(&file).unwrap(), Compression::fast());
    writeln!(writer, "t,latency_ms").unwrap();
    // Seven of eight say nothing, so that the time goes into reading and not into forecasts.
    for row in 0..1_000_000_u32 {
        let value = if row % 8 == 0 { (100 + row % 17).to_string() } else { String::new() };
        writeln!(writer, "{row},{value}").unwrap();
    }
    writer.finish().unwrap();
    let mut child = backtest()
        .arg(&file)
        .args(["--jsonl", "-", "--report"])
        .arg(folder.path().join("r.html"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut count, mut peak) = (0, 0);
    while let Some(line) = lines.next().transpose().unwrap() {
        assert!(line.ends_with('}'), "{line}");
        count += 1;
        // As long as it writes it lives; its last lines wait in the pipe when it has done nearly all.
        if count % 10_000 == 0 {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let seen = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
            peak = seen.map_or(peak, |seen| seen.trim().parse().unwrap());
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(count, 125_000);
    assert!((1..100 * 1024).contains(&peak), "{peak} kB");
}

/// The report of the fixtures.
fn report() -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.html");
    let mut command = backtest();
    command.arg(FIXTURES).args(["--limit", "disk_gib=100", "--report"]).arg(&file);
    ends(command, 0);
    fs::read_to_string(file).unwrap()
}

#[test]
fn the_report_is_one_page_that_needs_nothing_else() {
    let page = report();
    let spaces = page.replace("http://www.w3.org/2000/svg", "");
    for foreign in ["http://", "https://", "src=", "@import", "url(", "<link"] {
        assert!(!spaces.contains(foreign), "{foreign}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn the_report_has_a_titled_picture_a_component_and_a_row_that_leads_to_it() {
    let page = report();
    let histories = fs::read_dir(FIXTURES).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "labels.csv");
    let count = histories.count();
    assert!(count > 1);
    assert_eq!(page.matches("role=\"img\"").count(), count);
    assert_eq!(page.matches("<title id=").count(), count);
    assert_eq!(page.matches("<desc id=").count(), count);
    for anchor in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert_eq!(page.matches(&format!("id=\"{anchor}\"")).count(), 1, "{anchor}");
    }
    // What labels.csv knows is drawn and told, as text and not as HTML.
    assert!(page.contains("memory leak") && page.contains("&lt;b&gt;cache&lt;/b&gt;") && !page.contains("<b>cache"));
    assert!(page.contains(">disk_gib<") || page.contains("disk_gib\n"));
}

#[test]
fn the_table_has_a_row_a_component_and_totals() {
    let mut command = backtest();
    command.arg(FIXTURES);
    let table = text(&ends(command, 0).stdout);
    assert!(table.contains("foresight/leaking") && table.contains("foresight/steady"), "{table}");
    let last = table.lines().last().unwrap();
    assert!(last.starts_with("2 components, ") && last.contains("1 alarm on 1"), "{last}");
}

#[test]
fn with_lines_on_standard_output_the_summary_goes_elsewhere() {
    let mut command = backtest();
    command.arg(PathBuf::from(FIXTURES).join("steady.csv")).args(["--jsonl", "-", "-o", "json"]);
    let output = ends(command, 0);
    assert!(text(&output.stdout).lines().all(|line| line.starts_with("{\"set\":\"foresight\"")));
    let summary: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(summary["totals"]["components"], 1);
}

#[test]
fn the_operators_own_critical_values_count() {
    let folder = folder(&[("s/a.csv", b"t,memory_usage\n0,60\n")]);
    let mut command = backtest();
    command.arg(folder.path().join("s")).args(["--jsonl", "-"]).env("HEAL_MEMORY_THRESH", "55");
    let line: Value = serde_json::from_slice(&ends(command, 0).stdout).unwrap();
    assert_eq!(line["health_score"], 70);
}
