// Command manual writes what packages have for people and shells into a folder: a page of the
// manual for each command, and the completions of bash, zsh and fish. The time of the pages is
// SOURCE_DATE_EPOCH, so that the same commit gives the same bytes.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra/doc"

	"sluice/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("want the folder to write to")
	}
	pages := filepath.Join(args[0], "man")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	root := cli.NewRoot()
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "sluice", Manual: "sluice"}, pages); err != nil {
		return err
	}
	return errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(args[0], "sluice.bash"), true),
		root.GenZshCompletionFile(filepath.Join(args[0], "sluice.zsh")),
		root.GenFishCompletionFile(filepath.Join(args[0], "sluice.fish"), true),
	)
}
