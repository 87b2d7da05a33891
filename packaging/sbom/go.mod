module sluice/packaging/sbom

go 1.26.7

require github.com/CycloneDX/cyclonedx-go v0.10.0
