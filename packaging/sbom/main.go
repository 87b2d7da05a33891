// Command sbom writes the modules of a Go program as CycloneDX JSON to standard output: the
// program's list of its modules, which `go version -m` prints, and Go itself. The same program
// always gives the same bytes.
package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("want the path of a Go program")
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return err
	}
	encoder := cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON)
	return encoder.SetPretty(true).EncodeVersion(bom(info), cyclonedx.SpecVersion1_6)
}

// bom returns the components of a program.
func bom(info *debug.BuildInfo) *cyclonedx.BOM {
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	program := component(cyclonedx.ComponentTypeApplication, info.Main.Path, info.Main.Version)
	program.Properties = &[]cyclonedx.Property{
		{Name: "goos", Value: settings["GOOS"]},
		{Name: "goarch", Value: settings["GOARCH"]},
		{Name: "vcs.revision", Value: settings["vcs.revision"]},
		{Name: "vcs.modified", Value: settings["vcs.modified"]},
	}
	libraries := []cyclonedx.Component{
		component(cyclonedx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go")),
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		library := component(cyclonedx.ComponentTypeLibrary, module.Path, module.Version)
		library.Properties = &[]cyclonedx.Property{{Name: "go.sum", Value: module.Sum}}
		libraries = append(libraries, library)
	}
	b := cyclonedx.NewBOM()
	b.Metadata = &cyclonedx.Metadata{Component: &program, Timestamp: settings["vcs.time"]}
	b.Components = &libraries
	return b
}

// component returns a module. Its reference is its package URL.
func component(kind cyclonedx.ComponentType, path, version string) cyclonedx.Component {
	purl := "pkg:golang/" + path + "@" + version
	return cyclonedx.Component{BOMRef: purl, Type: kind, Name: path, Version: version, PackageURL: purl}
}
