package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/config/reference"
	"sluice/docs"
)

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain KEY",
		Short: "Explain a key of the configuration file, and the keys below it",
		Long: "Explain a key of the configuration file, and the keys below it: the default, the\n" +
			"allowed values, who may set it besides the file, and what it means.\n\n" +
			"  sluice explain services.star.retry\n" +
			"  sluice explain routes.when\n" +
			"  sluice explain retry.attempts",
		Args: oneArgument("name one key, such as services.star.retry"),
		RunE: func(cmd *cobra.Command, args []string) error {
			rows := reference.Rows(docs.Configuration)
			below := reference.Below(rows, args[0])
			if len(below) == 0 {
				want := "want one of the configuration file, such as services.star.retry"
				if known := reference.Suggest(rows, args[0]); known != "" {
					want = fmt.Sprintf("did you mean %q?", known)
				}
				return fmt.Errorf("%q is no key: %s", args[0], want)
			}
			return writeRows(cmd.OutOrStdout(), below)
		},
	}
}

func writeRows(out io.Writer, rows []reference.Row) error {
	for _, r := range rows {
		text := fmt.Sprintf("%s\n  default: %s\n  allowed: %s\n", r.Key, plain(r.Default), plain(r.Allowed))
		if r.SetBy != "" {
			text += "  also set by: " + setters(r.SetBy) + "\n"
		}
		if _, err := fmt.Fprintf(out, "%s  %s\n\n", text, plain(r.Meaning)); err != nil {
			return err
		}
	}
	return nil
}

// setters returns the words for the letters of who may set a key.
func setters(letters string) string {
	var words []string
	for _, s := range []struct{ letter, word string }{{"D", "documents"}, {"T", "tags"}, {"M", "meta of instances"}} {
		if strings.Contains(letters, s.letter) {
			words = append(words, s.word)
		}
	}
	text := strings.Join(words, ", ")
	if strings.Contains(letters, "†") {
		text += " (not every value)"
	}
	return text
}

// link is a link in Markdown.
var link = regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`)

// plain returns a text without the marks of Markdown.
func plain(markdown string) string {
	return strings.NewReplacer("`", "", `\|`, "|").Replace(link.ReplaceAllString(markdown, "$1"))
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration file, for editors",
		Long: "Print the JSON Schema of the configuration file. Editors complete keys and find\n" +
			"mistakes with it: write it to a file, and begin sluice.yaml with\n\n" +
			"  # yaml-language-server: $schema=FILE",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			meaning := reference.Meanings(reference.Rows(docs.Configuration))
			return writeJSON(cmd.OutOrStdout(), config.JSONSchema(func(key string) string { return plain(meaning(key)) }))
		},
	}
}
