package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/refusal"
	"sluice/test/verify"
)

// docs/reasons.md has a heading or a row for each reason of the code, and for no other one.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	text := string(verify.Result(os.ReadFile("../docs/reasons.md")).Must(t))
	var inText []string
	for _, found := range regexp.MustCompile("(?m)^(?:###|\\|) `([a-z0-9_]+)`(?: \\|.*)?$").FindAllStringSubmatch(text, -1) {
		inText = append(inText, found[1])
	}
	inCode := reasonsOf(t, ".", "http1", "refusal")
	for _, reason := range inCode {
		verify.That(t, slices.Contains(inText, reason), "docs/reasons.md has no heading or row for %s", reason)
	}
	for n, reason := range inText {
		verify.That(t, slices.Contains(inCode, reason), "docs/reasons.md has a heading or row for %s, which no code gives", reason)
		verify.That(t, !slices.Contains(inText[:n], reason), "docs/reasons.md has %s twice", reason)
	}
}

var (
	reasonGiven  = regexp.MustCompile(`(?:\bError\{|(?:refusal\.|= )New\()[\w.]+, "(\w+)"|\binterrupted[\w., ]* = "(\w+)"`)
	cutReasonIn  = regexp.MustCompile(`(?s)\nfunc cutReason\(.*?\n}`)
	reasonResult = regexp.MustCompile(`\treturn "(\w+)"`)
)

// reasonsOf returns the reasons in the source text of packages: those of refusals and of errors of
// package http1, of cut exchanges (the field interrupted), and what cutReason returns.
func reasonsOf(t *testing.T, dirs ...string) []string {
	reasons := []string{refusal.ChallengeReason}
	for _, dir := range dirs {
		for _, name := range verify.Result(filepath.Glob(filepath.Join(dir, "*.go"))).Must(t) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text := string(verify.Result(os.ReadFile(name)).Must(t))
			found := append(reasonGiven.FindAllStringSubmatch(text, -1), reasonResult.FindAllStringSubmatch(cutReasonIn.FindString(text), -1)...)
			for _, of := range found {
				reasons = append(reasons, strings.Join(of[1:], ""))
			}
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}
