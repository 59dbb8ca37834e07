//! Writes the CustomResourceDefinitions into `manifests/base/crds/`.

use hearth_api::crds;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = crds::folder();
    std::fs::create_dir_all(&folder)?;
    for (name, content) in crds::files()? {
        std::fs::write(folder.join(name), content)?;
        println!("wrote manifests/base/crds/{name}");
    }
    Ok(())
}
