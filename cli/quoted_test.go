package cli

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestQuotedLines(t *testing.T) {
	t.Parallel()
	const begin = "services:\n  a:\n"
	for text, want := range map[string]string{
		begin + "\tpeers: [b]\n":                          ":3: not valid YAML: found character that cannot start any token\n  →peers: [b]\n  ^\n",
		begin + "    peers: [b]\n   health: {}\n":         ":4: not valid YAML: did not find expected key\n     health: {}\n     ^\n",
		begin + "    peers: ['b]\nroutes: []\n":           ":3: not valid YAML: found unexpected end of stream\n      peers: ['b]\n              ^\n",
		begin + "    peers: ['b' }\n":                     ":3: not valid YAML: did not find expected ',' or ']'\n      peers: ['b' }\n                  ^\n",
		"log: {}\nlog: { level: info }\n":                 ":2: log: given twice, first in line 1\n  log: { level: info }\n  ^\n",
		"log: { leve\x7fl\n: info }\n":                    ": not valid YAML: control characters are not allowed\n",
		"admin: { address: 'a', token: 'b\n":              ":1: not valid YAML: found unexpected end of stream\n",
		"consul:\n  token:\n\n    'b\n":                   ":4: not valid YAML: found unexpected end of stream\n",
		"consul:\n  token: >\n    b\n    c\n   d: e\n":    ":5: not valid YAML: did not find expected key\n",
		"routes:\n- add: { a: {\nb: ],\n":                 ":3: not valid YAML: did not find expected node content\n",
		"log: { level: 'http://user:password@host' ] }\n": ":1: not valid YAML: did not find expected ',' or '}'\n",
	} {
		file := writeFile(t, "sluice.yaml", text)
		_, _, errors := execute(t, "check", file)
		verify.That(t, strings.Contains(errors, file+want) && strings.Count(errors, "^\n") == strings.Count(want, "^\n"), "of %q:\n%s want\n%s", text, errors, file+want)
		_, _, errors = execute(t, "run", "--config", file)
		verify.That(t, !strings.Contains(errors, "^\n"), "a log has a line of the file:\n%s", errors)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "sluice.yaml", "log: "+strings.Repeat("a", 55)+"b"+strings.Repeat("c", 60)+"\n")
	want := "  …" + strings.Repeat("a", widthAround-1) + "b" + strings.Repeat("c", widthAround-2) + "…\n  " + strings.Repeat(" ", widthAround) + "^\n"
	verify.Equal(t, quoted(file, 1, 61), want, "in the middle")
	verify.Equal(t, quoted(file, 1, 1), "  log: "+strings.Repeat("a", widthAround-6)+"…\n  ^\n", "at the beginning")
}
