//go:build unix

package docs

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/cli"
	"sluice/test/verify"
)

// textOf returns the text of a file of the repository.
func textOf(t *testing.T, name string) string {
	return string(verify.Result(os.ReadFile(filepath.Join(repository, name))).Must(t))
}

// forEach calls check with the first group of each match in the pages.
func forEach(t *testing.T, pattern string, check func(found string) error) {
	for _, name := range pages(t) {
		for n, line := range strings.Split(textOf(t, name), "\n") {
			for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(line, -1) {
				err := check(found[1])
				verify.That(t, err == nil, "%s:%d: %v", name, n+1, err)
			}
		}
	}
}

// What the pages link to within the repository is there, and so is the heading that a link names.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^):]+)\)`)
	for _, name := range append(pages(t), "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		for n, line := range strings.Split(textOf(t, name), "\n") {
			for _, found := range link.FindAllStringSubmatch(line, -1) {
				target, anchor, _ := strings.Cut(found[1], "#")
				if target = path.Join(path.Dir(name), target); strings.HasPrefix(found[1], "#") {
					target = name
				}
				_, err := os.Stat(filepath.Join(repository, target))
				verify.That(t, err == nil, "%s:%d: %s is not there", name, n+1, target)
				verify.That(t, err != nil || anchor == "" || slices.Contains(anchors(textOf(t, target)), anchor),
					"%s:%d: %s has no heading %s", name, n+1, target, anchor)
			}
		}
	}
}

var (
	heading     = regexp.MustCompile("(?m)^#+ +(.*)$")
	codeBlock   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	linked      = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	noneOfLinks = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns what GitHub lets links to the headings of a page end with. The second and later
// ones of the same name get a number.
func anchors(text string) []string {
	var all []string
	times := make(map[string]int)
	for _, found := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		title := noneOfLinks.ReplaceAllString(linked.ReplaceAllString(found[1], "$1"), "")
		anchor := strings.ToLower(strings.ReplaceAll(title, " ", "-"))
		if times[anchor]++; times[anchor] > 1 {
			anchor = fmt.Sprintf("%s-%d", anchor, times[anchor]-1)
		}
		all = append(all, anchor)
	}
	return all
}

// Pages name only metrics that docs/metrics.md lists, as a test of package admin has it.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(sluice_[a-z0-9_]+)` ").FindAllStringSubmatch(textOf(t, "docs/metrics.md"), -1) {
		listed = append(listed, row[1])
	}
	others := []string{"sluice_peer", "sluice_client", "sluice_route", "sluice_route_"} // cookies, and keys of Consul's meta
	forEach(t, `\b(sluice_[a-z0-9_]+)`, func(name string) error {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if family, ok := strings.CutSuffix(name, suffix); ok && slices.Contains(listed, family) {
				return nil
			}
		}
		begins := func(metric string) bool { return strings.HasPrefix(metric, name) }
		if strings.HasSuffix(name, "_") && slices.ContainsFunc(listed, begins) { // as in sluice_mirror_…
			return nil
		}
		if !slices.Contains(listed, name) && !slices.Contains(others, name) {
			return fmt.Errorf("docs/metrics.md does not list %s", name)
		}
		return nil
	})
}

// Pages name metrics with the labels that docs/metrics.md lists: a query with another one finds
// nothing.
func TestLabelsExist(t *testing.T) {
	t.Parallel()
	listed := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(sluice_[a-z0-9_]+)` \\|([^|]*)\\|").FindAllStringSubmatch(textOf(t, "docs/metrics.md"), -1) {
		listed[row[1]] = row[2]
	}
	forEach(t, `\b(sluice_[a-z0-9_]+\{[^}]*\})`, func(found string) error {
		metric, labels, _ := strings.Cut(strings.TrimSuffix(found, "}"), "{")
		for label := range strings.SplitSeq(labels, ",") {
			if name, _, _ := strings.Cut(label, "="); !strings.Contains(listed[metric], "`"+strings.TrimSpace(name)+"`") {
				return fmt.Errorf("%s has no label %s", metric, name)
			}
		}
		return nil
	})
}

// Pages name only endpoints that the API describes, as a test of package admin has it.
func TestEndpointsExist(t *testing.T) {
	t.Parallel()
	var described []*regexp.Regexp
	for _, path := range regexp.MustCompile(`(?m)^  (/\S*):$`).FindAllStringSubmatch(textOf(t, "admin/openapi.yaml"), -1) {
		described = append(described, regexp.MustCompile("^"+regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path[1], `[^/]+`)+"$"))
	}
	forEach(t, "(?:`|GET |POST |127\\.0\\.0\\.1:[0-9]+)(/(?:api/[a-z]{3,}|consul/[a-zA-Z]+|debug/pprof)[^`'? ]*)", func(path string) error {
		if !slices.ContainsFunc(described, func(r *regexp.Regexp) bool { return r.MatchString(path) }) {
			return fmt.Errorf("the API has no %s", path)
		}
		return nil
	})
}

// The admin page links only to pages and headings that there are.
func TestLinksOfThePageExist(t *testing.T) {
	t.Parallel()
	links := regexp.MustCompile(`href="(docs/[^"#]*)(?:#:~:text=([^"]*))?"`).FindAllStringSubmatch(textOf(t, "admin/dashboard/page.html"), -1)
	verify.That(t, len(links) > 5, "the page has the links %q", links)
	for _, link := range links {
		heading := verify.Result(url.PathUnescape(link[2])).Must(t)
		verify.That(t, strings.Contains(textOf(t, link[1]), heading), "%s has no %q", link[1], heading)
	}
}

// Pages name only commands and flags that sluice has, also where they are not run.
func TestCommandsExist(t *testing.T) {
	forEach(t, "(?:`|^\\$ )sluice ([^`]+)", func(text string) error {
		words := strings.Fields(text)
		if end := slices.Index(words, "--"); end >= 0 {
			words = words[:end]
		}
		command := 0 // number of words that name it
		for command < len(words) && regexp.MustCompile(`^[a-z-]+$`).MatchString(words[command]) {
			command++
		}
		var help bytes.Buffer
		for ; command > 0; command-- { // the last words may be arguments
			help.Reset()
			if status := cli.Run(append([]string{"help"}, words[:command]...), &help, &help); status == 0 &&
				strings.Contains(help.String(), "\n  sluice "+strings.Join(words[:command], " ")) {
				break
			}
		}
		if command == 0 {
			return fmt.Errorf("there is no command sluice %s", text)
		}
		for _, word := range words[command:] {
			flag, _, _ := strings.Cut(strings.TrimRight(word, ".,;:"), "=")
			if strings.HasPrefix(flag, "--") && !strings.Contains(help.String(), flag+" ") && !strings.Contains(help.String(), flag+"\n") {
				return fmt.Errorf("sluice %s has no flag %s", strings.Join(words[:command], " "), flag)
			}
		}
		return nil
	})
}

// docs/operations.md lists the commands as sluice help does.
func TestCommandsAreListed(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	cli.Run([]string{"help"}, &help, &help)
	_, commands, _ := strings.Cut(help.String(), "Available Commands:\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	var rows strings.Builder
	for _, command := range regexp.MustCompile(`(?m)^  (\S+) +(.*)$`).FindAllStringSubmatch(commands, -1) {
		if command[1] != "help" {
			fmt.Fprintf(&rows, "| `sluice %s` | %s |\n", command[1], command[2])
		}
	}
	const name, header = "docs/operations.md", "\n| command | |\n|---|---|\n"
	page := textOf(t, name)
	before, table, _ := strings.Cut(page, header)
	table, after, _ := strings.Cut(table, "\n\n")
	if table += "\n"; *update && table != rows.String() {
		verify.NoError(t, os.WriteFile(filepath.Join(repository, name), []byte(before+header+rows.String()+"\n"+after), 0o644))
		return
	}
	verify.Equal(t, table, rows.String(), "the table of commands (-update writes it)")
}

// The program has the messages of its log that docs/troubleshooting.md explains, each from its last
// colon on.
func TestLogMessagesExist(t *testing.T) {
	t.Parallel()
	var program strings.Builder
	err := filepath.WalkDir(repository, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			program.WriteString(textOf(t, strings.TrimPrefix(path, repository)))
		}
		return err
	})
	verify.NoError(t, err)
	_, table, found := strings.Cut(textOf(t, "docs/troubleshooting.md"), "\n| level | message | |\n|---|---|---|\n")
	verify.Require(t, found, "docs/troubleshooting.md has no table of messages")
	table, _, _ = strings.Cut(table, "\n\n")
	for row := range strings.Lines(table) {
		for _, message := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(row, "|")[2], -1) {
			text := strings.TrimSuffix(message[1], " …")
			text = text[strings.LastIndex(text, ": ")+1:]
			verify.That(t, strings.Contains(program.String(), strings.TrimSpace(text)), "the log has no message %q", message[1])
		}
	}
}

// Each reason of connections without HTTP in docs/reasons.md is in the table by status of
// docs/tcp.md.
func TestReasonsAreInTables(t *testing.T) {
	t.Parallel()
	_, connections, found := strings.Cut(textOf(t, "docs/reasons.md"), "\n## Connections without HTTP\n")
	verify.Require(t, found, "docs/reasons.md has no section about connections without HTTP")
	text := textOf(t, "docs/tcp.md")
	for _, reason := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(connections, -1) {
		row := regexp.MustCompile("(?m)^\\|[^|]*(\\|[^|]*)?`" + reason[1] + "`[^|]*\\|")
		verify.That(t, row.MatchString(text), "no table of docs/tcp.md has the reason %s", reason[1])
	}
}
