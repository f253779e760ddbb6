//! The CRD files that people apply are what the types render.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// `crds/` is for kubectl, the chart's for Helm.
const FOLDERS: [&str; 2] = ["crds", "charts/panacea/crds"];

#[test]
fn the_files_are_what_the_types_render() {
    let rendered: BTreeMap<String, String> = panacea::cli::render_crds().unwrap().into_iter().collect();
    assert_eq!(rendered.len(), panacea::api::crds().len(), "two CRDs with one file name");
    for folder in FOLDERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let names: BTreeSet<String> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}; run make crds", folder.display()))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        assert_eq!(names, rendered.keys().cloned().collect(), "the files of {}; run make crds", folder.display());
        for (name, yaml) in &rendered {
            let path = folder.join(name);
            let file = fs::read_to_string(&path).unwrap();
            let differs = file.lines().zip(yaml.lines()).enumerate().find(|(_, (file, rendered))| file != rendered);
            assert!(file == *yaml, "{} is not what src/api renders; run make crds: {differs:?}", path.display());
        }
    }
}
