package main

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

// mutation is one seeded fault: an edit of one file that at least one of the named tests must
// notice. Its room is the first folder of file.
type mutation struct {
	name string // what the fault is, in words joined by -
	file string // from the root of the module
	old  string // occurs exactly once in the file; a line number would rot
	new  string
	test string // a package and a pattern of its tests, as in "./balancer TestDrain|TestClose"
	// proof is the kind of violation that test/proof counts for the fault, while requests run;
	// empty: it sees none.
	proof string
}

func (m mutation) room() string {
	room, _, _ := strings.Cut(m.file, "/")
	return room
}

// underProof returns the fault with a short simulation in place of its tests, in which only the
// proof judges.
func (m mutation) underProof() mutation {
	m.test = "./test/simulation TestProof"
	return m
}

// command splits test.
func (m mutation) command() (pkg, pattern string) {
	pkg, pattern, _ = strings.Cut(m.test, " ")
	return pkg, pattern
}

// apply returns the text of the file below root with the fault.
func (m mutation) apply(root string) (string, error) {
	path := filepath.Join(root, m.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := string(content)
	if n := strings.Count(text, m.old); n != 1 {
		return "", fmt.Errorf("%s has the old text of %s %d times, want once", m.file, m.name, n)
	}
	text = strings.Replace(text, m.old, m.new, 1)
	if _, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution); err != nil {
		return "", fmt.Errorf("%s does not parse: %w", m.name, err)
	}
	return text, nil
}

// overlay writes the faulty file and the go command's overlay for it into dir, and returns the
// path of the latter. Nothing below root changes.
func (m mutation) overlay(root, dir string) (string, error) {
	text, err := m.apply(root)
	if err != nil {
		return "", err
	}
	faulty := filepath.Join(dir, "faulty.go")
	if err := os.WriteFile(faulty, []byte(text), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.file): faulty}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}
