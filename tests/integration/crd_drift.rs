//! The CRD files that people apply are what the types render.

use std::{fs, path::Path};

/// `crds/` is for kubectl, the chart's for Helm.
const FILES: [&str; 2] = ["crds/panacea.dev.yaml", "charts/panacea/crds/panacea.dev.yaml"];

#[test]
fn the_files_are_what_the_types_render() {
    let rendered = panacea::cli::render_crds().unwrap();
    for file in FILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let stored = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}; run make crds"));
        let differs = stored.lines().zip(rendered.lines()).enumerate().find(|(_, (stored, now))| stored != now);
        assert!(stored == rendered, "{file} is not what src/api renders; run make crds: {differs:?}");
    }
}
