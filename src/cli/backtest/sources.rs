//! The files of the components of each set.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    csv::Bad,
    labels::{Labels, read as read_labels},
    remote::Fetched,
};

/// Not a history: the known events of the histories beside it.
const LABELS: &str = "labels.csv";

/// One component.
pub(super) struct Source {
    pub set: String,
    pub component: String,
    pub from: From,
    pub labels: Arc<Labels>,
}

pub(super) enum From {
    File(PathBuf),
    Fetched(Fetched),
}

/// The components by set and name, and the inputs that could not be read.
#[derive(Default)]
pub(super) struct Sources {
    pub found: Vec<Source>,
    pub bad: Vec<Bad>,
}

impl Sources {
    pub(super) fn of_history(component: &str, history: Fetched) -> Self {
        let source = Source {
            set: "prometheus".to_owned(),
            component: component.to_owned(),
            from: From::Fetched(history),
            labels: Arc::default(),
        };
        Self { found: vec![source], bad: Vec::new() }
    }
}

pub(super) fn find(paths: &[PathBuf]) -> Sources {
    let mut finder = Finder::default();
    for path in paths {
        if let Err(bad) = finder.path(path) {
            finder.bad.push(bad);
        }
    }
    let found = finder.files.into_iter().map(|((set, component), (file, labels))| Source {
        set,
        component,
        from: From::File(file),
        labels,
    });
    Sources { found: found.collect(), bad: finder.bad }
}

#[derive(Default)]
struct Finder {
    files: BTreeMap<(String, String), (PathBuf, Arc<Labels>)>,
    /// By folder, so that each file is read once.
    labels: BTreeMap<PathBuf, Arc<Labels>>,
    bad: Vec<Bad>,
}

impl Finder {
    fn path(&mut self, path: &Path) -> Result<(), Bad> {
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_dir() {
            self.add(path);
            return Ok(());
        }
        let (mut files, folders) = list(path)?;
        if files.is_empty() {
            for folder in folders {
                match list(&folder) {
                    Ok((found, _)) => files.extend(found),
                    Err(bad) => self.bad.push(bad),
                }
            }
        }
        if files.is_empty() {
            return Err(Bad::new(path, None, "holds no .csv or .csv.gz file, nor does any folder in it"));
        }
        files.iter().for_each(|file| self.add(file));
        Ok(())
    }

    fn add(&mut self, file: &Path) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let component = name.strip_suffix(".gz").unwrap_or(&name);
        let component = component.strip_suffix(".csv").unwrap_or(component).to_owned();
        // Canonical, since "." and ".." have no name.
        let folder = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_owned)).unwrap_or_default();
        let set = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let labels = self.labels.entry(folder.clone()).or_insert_with(|| {
            let file = folder.join(LABELS);
            let labels = if file.is_file() { read_labels(&file) } else { Ok(Labels::default()) };
            Arc::new(labels.unwrap_or_else(|bad| {
                self.bad.push(bad);
                Labels::default()
            }))
        });
        match self.files.entry((set, component)) {
            Entry::Vacant(place) => {
                place.insert((file.to_owned(), labels.clone()));
            }
            Entry::Occupied(other) => {
                let (set, component) = other.key();
                let what = format!("is {set}/{component}, as is {}; keep one, or rename it", other.get().0.display());
                self.bad.push(Bad::new(file, None, what));
            }
        }
    }
}

/// The histories in a folder, and its folders, by name.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Bad> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            folders.push(path);
        } else if (name.ends_with(".csv") || name.ends_with(".csv.gz")) && name != LABELS {
            files.push(path);
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Bad {
    Bad::new(path, None, format!("cannot be read: {error}"))
}
