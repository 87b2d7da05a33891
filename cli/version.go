package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sluice %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// releaseVersion is that of the next release, or of this one. packaging/build reads it.
const releaseVersion = "0.1.0"

// version is releaseVersion and, in a build from a checkout, the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return releaseVersion
	}
	return versionOf(info)
}

// versionOf is a version as in semver.org: what follows + does not count in comparisons.
func versionOf(info *debug.BuildInfo) string {
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if commit == "" {
		return releaseVersion
	}
	v := releaseVersion + "+" + commit[:min(12, len(commit))]
	if settings["vcs.modified"] == "true" {
		v += ".modified"
	}
	return v
}
