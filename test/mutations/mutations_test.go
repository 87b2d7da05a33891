package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// Each fault still applies, and the tests that must notice it still exist. Nothing is built.
func TestFaultsApply(t *testing.T) {
	root := verify.Result(moduleRoot()).Must(t)
	names, rooms := make(map[string]bool), make(map[string]bool)
	for _, m := range all() {
		verify.That(t, !names[m.name], "two faults have the name %s", m.name)
		names[m.name], rooms[m.room()] = true, true
		_, err := m.apply(root)
		verify.Succeeds(t, err)
		pkg, pattern := m.command()
		verify.That(t, hasTests(t, root+"/"+pkg, pattern), "%s: %s has no test %s", m.name, pkg, pattern)
		verify.That(t, pkg != "./test/simulation" || m.proof != "", "%s: the simulation finds it, and no violation of the proof is named", m.name)
	}
	verify.That(t, len(names) >= 60, "%d faults, want at least 60", len(names))
}

// hasTests reports whether the folder has a test for each alternative of the pattern. What follows
// a / selects subtests and is not looked at.
func hasTests(t *testing.T, folder, pattern string) bool {
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Error(err)
		return false
	}
	var found []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_test.go") {
			content := verify.Result(os.ReadFile(folder + "/" + e.Name())).Must(t)
			for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)`).FindAllStringSubmatch(string(content), -1) {
				found = append(found, match[1])
			}
		}
	}
	for alternative := range strings.SplitSeq(pattern, "|") {
		alternative, _, _ = strings.Cut(alternative, "/")
		matches, err := regexp.Compile(alternative)
		if alternative == "" || err != nil || !slices.ContainsFunc(found, matches.MatchString) {
			return false
		}
	}
	return true
}
