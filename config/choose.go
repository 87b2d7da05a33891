package config

import (
	"path/filepath"
	"slices"
	"strings"
)

// ChooseDocuments finds out which documents can be used. It calls try with the wanted documents,
// all together. If that fails it tries each source whose documents differ from base beside the ones
// of the others, and keeps what succeeds, whatever their order is. It returns the error of each
// other source. The file is the first in want and in base.
func ChooseDocuments(want, base []Source, try func([]Source) error) (refused map[string]error) {
	err := try(want)
	if err == nil {
		return nil
	}
	differ := slices.DeleteFunc(slices.Clone(want), func(s Source) bool {
		before, known := find(base, s.Name)
		return known && equal(s, before)
	})
	switch len(differ) {
	case 0: // something else has changed, such as a file that the configuration names
		return map[string]error{want[0].Name: err}
	case 1:
		return map[string]error{differ[0].Name: err}
	}
	refused = make(map[string]error)
	for rest := len(differ) + 1; len(differ) < rest; { // what needs the documents of a later source is tried again with them
		rest = len(differ)
		differ = slices.DeleteFunc(differ, func(s Source) bool {
			next := replace(base, s)
			if refused[s.Name] = try(next); refused[s.Name] != nil {
				return false
			}
			delete(refused, s.Name)
			base = next
			return true
		})
	}
	return refused
}

// Wanted returns what each source of latest and used offers: what it has now, or what is in
// use if that is pinned or if it says nothing. The file is the first in all lists; used may be
// empty.
func Wanted(latest, used []Source) []Source {
	want := make([]Source, 0, max(len(latest), len(used)))
	for _, l := range latest {
		if u, known := find(used, l.Name); known && u.staysPinned(l) {
			l = u.pinned(u.Pin.Number, l)
		}
		want = append(want, l)
	}
	for _, u := range used {
		if _, says := find(latest, u.Name); !says {
			want = append(want, u)
		}
	}
	return want
}

// staysPinned reports whether s, which is in use, has a pin that does not end with what the source
// says.
func (s Source) staysPinned(says Source) bool {
	if s.Pin == nil {
		return false
	}
	hash := says.Hash()
	return s.Pin.Against == hash || s.Pin.Against == "" && hash != s.Hash()
}

// equal reports whether two sources of the same name have the same documents and pins.
func equal(a, b Source) bool {
	return slices.Equal(a.Documents, b.Documents) && (a.Pin == nil) == (b.Pin == nil) && (a.Pin == nil || a.Pin.Number == b.Pin.Number && a.Pin.Against == b.Pin.Against)
}

// Named returns the file, the first of sources, and the sources that c names, in its order.
func (c *Config) Named(sources []Source) []Source {
	list := sources[:1:1]
	for _, y := range c.Dynamic {
		if s, known := find(sources[1:], y.Name()); known {
			list = append(list, s)
		}
	}
	return list
}

func find(sources []Source, name string) (Source, bool) {
	i := slices.IndexFunc(sources, func(s Source) bool { return s.Name == name })
	if i < 0 {
		return Source{}, false
	}
	return sources[i], true
}

// replace returns a copy of sources with s in place of the one with its name.
func replace(sources []Source, s Source) []Source {
	list := slices.Clone(sources)
	if i := slices.IndexFunc(list, func(old Source) bool { return old.Name == s.Name }); i >= 0 {
		list[i] = s
		return list
	}
	return append(list, s)
}

// RollBack returns the sources with the documents of the revision with a number, then. A source
// that says something else now is pinned to them: see Pin. latest is what the sources say now, and
// used those in use, which have what the others said last. A source in use that was not known then
// stays as it is now.
func RollBack(number uint64, then, latest, used []Source) []Source {
	list := make([]Source, len(then))
	for i, s := range then {
		says, known := find(latest, s.Name)
		if u, ok := find(used, s.Name); ok && !known {
			says = u.LastSaid()
			known = u.Pin == nil || u.Pin.Said != nil
		}
		switch {
		case !known:
			s.Lost, s.Pin = nil, &Pin{Number: number}
			list[i] = s
		case says.Hash() != s.Hash():
			list[i] = s.pinned(number, says)
		default:
			list[i] = says
		}
	}
	for _, s := range used {
		if _, known := find(list, s.Name); !known {
			list = append(list, s)
		}
	}
	return list
}

// Unknown returns the names of the sources that c has and that are not in sources.
func (c *Config) Unknown(sources []Source) (names []string) {
	for _, y := range c.Dynamic {
		if _, known := find(sources, y.Name()); !known {
			names = append(names, y.Name())
		}
	}
	return names
}

// Changed returns the names of the sources whose documents differ before and now, or that are
// new or gone.
func Changed(before, now []Source) (names []string) {
	for _, n := range now {
		if b, known := find(before, n.Name); !known || !slices.Equal(b.Documents, n.Documents) {
			names = append(names, n.Name)
		}
	}
	for _, b := range before {
		if _, known := find(now, b.Name); !known {
			names = append(names, b.Name)
		}
	}
	return names
}

// Released returns the names of the sources that had a pin before and have none now.
func Released(before, now []Source) (names []string) {
	for _, s := range before {
		if n, known := find(now, s.Name); s.Pin != nil && known && n.Pin == nil {
			names = append(names, s.Name)
		}
	}
	return names
}

// Start returns the configuration of a new process, from what the sources say and what an
// earlier process used: all together if that is valid. Otherwise the file must be valid, or
// the error is returned, and a source whose documents are refused has those that the earlier
// process used, if they are valid.
func (in Input) Start(latest, used []Source) (built *Built, chosen []Source, refused map[string]error, err error) {
	try := func(sources []Source) error {
		b, err := in.Build(sources)
		if err == nil {
			built, chosen = b, b.Config.Named(sources)
		}
		return err
	}
	used = in.Moved(used)
	want := Wanted(latest, used)
	if try(want) == nil {
		return built, chosen, nil, nil
	}
	if err := try(want[:1]); err != nil {
		return nil, nil, nil, err
	}
	refused = ChooseDocuments(want, want[:1:1], try)
	for _, u := range used[min(1, len(used)):] {
		if refused[u.Name] != nil {
			_ = try(replace(chosen, u)) // if this fails too, the source has no documents
		}
	}
	return built, chosen, refused, nil
}

// Moved returns the sources of a revision, of the file first, as if that had always been where it
// is now.
func (in Input) Moved(sources []Source) []Source {
	if len(sources) == 0 || sources[0].Name == in.Source() {
		return sources
	}
	file := in.FileSource(sources[0].Documents[0].Text)
	if pin := sources[0].Pin; pin != nil && pin.Said != nil && len(pin.Said.Documents) > 0 {
		file = file.pinned(pin.Number, in.FileSource(pin.Said.Documents[0].Text))
	}
	return slices.Concat([]Source{file}, sources[1:])
}

// PutDocument puts a text in place of the document with that name, or adds it to the source that
// would have a document with that name: the tree that the key is below, or the files whose pattern
// fits. It returns false if there is none. The documents of sources are not changed, but replaced.
func PutDocument(sources []Source, name, text string) bool {
	for i := range sources {
		if at := slices.IndexFunc(sources[i].Documents, func(d Document) bool { return d.Name == name }); at >= 0 {
			sources[i].Documents = slices.Clone(sources[i].Documents)
			sources[i].Documents[at].Text = text
			return true
		}
	}
	for i := range sources {
		if d, fits := sources[i].newDocument(name, text); fits {
			sources[i].Documents = append(slices.Clip(sources[i].Documents), d)
			return true
		}
	}
	return false
}

// newDocument returns the document that s would have by a name that it has not.
func (s *Source) newDocument(name, text string) (d Document, fits bool) {
	if s.Kind == KindFile {
		fits, err := filepath.Match(s.Name, name)
		return Document{Name: name, Text: text}, fits && err == nil
	}
	if name == s.Name { // one key, which is not there now
		return Document{Name: name, Text: text}, true
	}
	rest, below := strings.CutPrefix(name, s.Name)
	if !below || !strings.HasSuffix(s.Name, "/") || !IsDocument(rest) {
		return d, false
	}
	return TreeDocument(s.Kind, strings.TrimPrefix(name, s.Kind+":"), rest, text), true
}
