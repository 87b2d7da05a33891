//go:build unix

package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/test/verify"
)

// repository is the root of the repository, where the pages are.
const repository = "../.."

// tasks has the scripts of the tasks of operators.
const tasks = "test/docs/tasks"

// pages returns the names of all pages, relative to the repository.
func pages(t *testing.T) []string {
	names := []string{"README.md"}
	for _, folder := range []string{"docs", "docs/dev", tasks} {
		for _, f := range verify.Result(filepath.Glob(filepath.Join(repository, folder, "*.md"))).Must(t) {
			names = append(names, folder+"/"+filepath.Base(f))
		}
	}
	return names
}

// step is a part of a page that the tests look at: a block, or a comment that starts something.
type step struct {
	line int    // of the page, where the text begins, from 1
	kind string // the language of a block; "setup", "consul" and "etcd" for comments
	text string // of the block or the comment, without indentation

	// From the comments before a block.
	illustration string // why it is not run
	file         string // its name in the directory of the page
	part         string // what its keys belong to
	background   bool   // its commands run side by side
	serves       bool   // its command runs on
	signal       string // what the command that runs on gets; the block is what it prints then
}

func (s step) lines() []string { return strings.Split(strings.TrimSuffix(s.text, "\n"), "\n") }

var (
	fence   = regexp.MustCompile("^( *)```([a-z]*)$")
	comment = regexp.MustCompile(`^ *<!-- (illustration|consul|etcd|setup|file|background|part|serves|signal)(?:: (.*?))?( -->)?$`)
)

// readPage returns the steps of a page in their order.
func readPage(t *testing.T, name string) (steps []step) {
	var next step // what comments say about the next block
	lines := strings.Split(textOf(t, name), "\n")
	for n := 0; n < len(lines); n++ {
		if found := comment.FindStringSubmatch(lines[n]); found != nil {
			switch key, value := found[1], found[2]; key {
			case "illustration":
				verify.Require(t, value != "", "%s:%d: an illustration needs a reason", name, n+1)
				next.illustration = value
			case "file":
				next.file = value
			case "part":
				next.part = value
			case "background":
				next.background = true
			case "serves":
				next.serves = true
			case "signal":
				next.signal = value
			case "consul", "etcd":
				steps = append(steps, step{line: n + 1, kind: key, text: value})
			case "setup":
				first := n + 1
				for n++; n < len(lines) && strings.TrimSpace(lines[n]) != "-->"; n++ {
				}
				verify.Require(t, n < len(lines), "%s:%d: the comment has no end", name, first)
				steps = append(steps, step{line: first + 1, kind: key, text: strings.Join(lines[first:n], "\n")})
			}
			continue
		}
		begin := fence.FindStringSubmatch(lines[n])
		if begin == nil {
			continue
		}
		indent, first := begin[1], n+1
		var block strings.Builder
		for n++; n < len(lines) && lines[n] != indent+"```"; n++ {
			block.WriteString(strings.TrimPrefix(lines[n], indent) + "\n")
		}
		verify.Require(t, n < len(lines), "%s:%d: the block has no end", name, first)
		next.line, next.kind, next.text = first+1, begin[2], block.String()
		steps = append(steps, next)
		next = step{}
	}
	return steps
}

// command is a command of a block, with what the page shows below it.
type command struct {
	line  int // of the page
	text  string
	shown []string
}

// commands returns the commands of a block. In a console block they begin with "$ ".
func (s step) commands(t *testing.T) (all []command) {
	continued := false
	for n, line := range s.lines() {
		text, isCommand := line, true
		if s.kind == "console" && !continued {
			text, isCommand = strings.CutPrefix(line, "$ ")
		}
		switch {
		case continued:
			all[len(all)-1].text += "\n" + text
		case isCommand:
			all = append(all, command{line: s.line + n, text: text})
		default:
			verify.Require(t, len(all) > 0, "line %d: the block does not begin with a command", s.line+n)
			all[len(all)-1].shown = append(all[len(all)-1].shown, line)
		}
		continued = isCommand && strings.HasSuffix(line, `\`) || continued && strings.HasSuffix(line, `\`)
	}
	return all
}
