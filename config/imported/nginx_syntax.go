package imported

import (
	"fmt"
	"regexp"
	"strings"

	"sluice/tags"
)

// directive is a directive of nginx, as words, with those in its block.
type directive struct {
	line
	in    *directive // whose block has it; nil: http, or none
	block []*directive
	named map[string][]*directive // those of the block; of "allow" also "deny"
	shut  bool                    // something in the block may deny, and does not carry over
}

// add adds a directive to the block.
func (d *directive) add(c *directive) {
	name := c.word(0)
	if name == "deny" {
		name = "allow"
	}
	if d.named == nil {
		d.named = make(map[string][]*directive)
	}
	c.in, d.block, d.named[name] = d, append(d.block, c), append(d.named[name], c)
}

// all returns the directives of a name that count in a block: its own, or else those around it.
func (d *directive) all(name string) []*directive {
	for d != nil && d.named[name] == nil {
		d = d.in
	}
	if d == nil {
		return nil
	}
	return d.named[name]
}

// value returns the first argument of the last directive of a name that counts, or "".
func (d *directive) value(name string) string {
	if found := d.all(name); len(found) > 0 {
		return found[len(found)-1].word(1)
	}
	return ""
}

// String returns what begins the block, for notes.
func (d *directive) String() string { return tags.Shorten(strings.Join(d.words, " ")) }

// closed reports whether what may deny is in the block, or in one around it.
func (d *directive) closed() bool { return d != nil && (d.shut || d.in.closed()) }

// maxWord limits a word, as in nginx.
const maxWord = 4096

// token is a comment, a sign, a word, or what is none of them.
var token = regexp.MustCompile(`(?s)#[^\n]*|[;{}]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?:\\.|\$\{|[^\s"'\\])(?:\\.|\$\{|[^\s;{\\])*|\S`)

// plain removes the backslashes that nginx removes: those of regular expressions stay.
var plain = strings.NewReplacer(`\"`, `"`, `\'`, `'`, `\\`, `\`, `\t`, "\t", `\r`, "\r", `\n`, "\n")

// parse adds the directives of a file, and of those that it includes, to a block at that depth.
func (n *nginx) parse(f File, in *directive, depth int) error {
	at, seen, top, d := Place{f.Name, 1}, 0, depth, new(directive)
	n.known[f.Name] = true
	fail := func(what string) error {
		if strings.Contains(f.Text, "{{") || strings.Contains(f.Text, "_by_lua_block") {
			what += "; Lua, or a template of consul-template, cannot be read: give the file that it writes"
		}
		return fmt.Errorf("%s: %s", at, what)
	}
	for _, found := range token.FindAllStringIndex(f.Text, -1) {
		at.Line, seen = at.Line+strings.Count(f.Text[seen:found[0]], "\n"), found[0]
		next, named := f.Text[found[0]:found[1]], len(d.words) > 0
		switch {
		case next[0] == '#':
		case next == "}" && !named && depth > top:
			in, depth = in.in, depth-1
		case depth >= maxDepth && (next == "{" || next == ";" && d.word(0) == "include"):
			return fail("blocks are too deep, or files include each other")
		case next == ";" && d.word(0) == "include":
			if err := n.include(d, in, depth+1); err != nil {
				return err
			}
			d = new(directive)
		case next == ";" && named:
			in.add(d)
			d = new(directive)
		case next == "{" && named:
			in.add(d)
			in, d, depth = d, new(directive), depth+1
		case strings.ContainsAny(next[:1], ";{}") || len(next) == 1 && strings.ContainsAny(next, "\"'\\"):
			return fail("unexpected " + next)
		default:
			if n.room--; n.room < 0 || len(next) > maxWord {
				return errTooLarge
			}
			if !named {
				d.at = at
			}
			if next[0] == '"' || next[0] == '\'' {
				next = next[1 : len(next)-1]
			}
			d.words = append(d.words, strings.ToValidUTF8(plain.Replace(next), "?"))
		}
	}
	if len(d.words) > 0 || depth > top {
		return fail("it ends within a directive or a block")
	}
	return nil
}
