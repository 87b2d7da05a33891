package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
)

// maxServices is how many services a document of a registry may have. Each takes up to 0.1 MB and
// two goroutines, with its checks.
const maxServices = 1000

// documentRights returns the rights of the keys of a document.
var documentRights = sync.OnceValue(func() *decoding.Rights {
	all := allRights().Below
	return &decoding.Rights{
		Setters: decoding.Setters(ByFile | ByDocument), Names: []string{"services", "routes"},
		Below: map[string]*decoding.Rights{"services": all["services"], "routes": all["routes"]},
	}
})

// writtenDocument is a document with who wrote it.
type writtenDocument struct {
	Document
	by Setter
}

// fragment is what a document contains, with the decoder that knows the lines of its keys.
type fragment struct {
	*decoder
	level int // index in levels
	parts parts
}

// parts are the keys of a document.
type parts struct {
	Services map[string]Service `key:"services" format:"name"`
	Routes   []Route            `key:"routes"`
}

// decodeDocument decodes a document, and checks what depends on nothing else but
// c.Consul, c.Actions and c.Defaults, which are w's. Its Errs has all errors. What its writer may
// not set is not read.
func decodeDocument(doc writtenDocument, c *Config, w *whole) *fragment {
	f := &fragment{decoder: newRestricted(doc.Name, doc.by, documentRights())}
	f.Misplaced, f.Absent, f.whole = onlyInTheFile, c.absent(), w
	if root := parse(f.decoder, doc.Document); len(f.Errs) == 0 {
		f.Decode(root, &f.parts)
	}
	if n := len(f.parts.Services); doc.by == ByDocument && n > maxServices {
		f.Refuse("services", strconv.Itoa(n), fmt.Sprintf("want at most %d in a document of a registry", maxServices))
		f.parts = parts{} // they need no further look
	}
	for _, name := range slices.Sorted(maps.Keys(f.parts.Services)) {
		s := f.parts.Services[name]
		s.check(f.decoder, decoding.Join("services", name), name, &c.Consul)
		s.ByDocument = doc.by == ByDocument
		f.parts.Services[name] = s
	}
	for i := range f.parts.Routes {
		r := &f.parts.Routes[i]
		if a := r.ForwardAuth; a != nil {
			a.ByDocument = doc.by == ByDocument
		}
		if j := r.JWT; j != nil {
			j.ByDocument = doc.by == ByDocument
		}
		r.check(f.decoder, routeAt{index: i}.key(), c)
	}
	f.Absent, f.whole = nil, nil // they have the file
	f.Forget(func() *yaml.Node { return parse(newDecoder(doc.Name), doc.Document) })
	return f
}

func parse(d *decoder, doc Document) *yaml.Node {
	if doc.Short != "" {
		return expand(d, doc)
	}
	return d.Parse([]byte(doc.Text))
}

// fork returns a copy of f for w, in which further errors can be recorded.
func (w *whole) fork(f *fragment, level int) *fragment {
	copied, d := *f, *f.decoder
	d.Decoder, d.whole = d.Fork(), w
	copied.decoder, copied.level = &d, level
	return &copied
}

// shortForm begins the keys in a tree whose values are no documents, but the addresses of the peers
// of a service, whose name follows.
const shortForm = "services/"

// expand returns the document that a short form stands for.
func expand(d *decoder, doc Document) *yaml.Node {
	name, ok := strings.CutPrefix(doc.Short, shortForm)
	if !ok || name == "" || strings.Contains(name, "/") {
		d.Fail(d.AtLine(1), "", "", "want a key that ends in .yaml, .yml or .json, or "+shortForm+"NAME")
		return nil
	}
	var lines []*yaml.Node
	number := 0
	for line := range strings.Lines(doc.Text) {
		number++
		if line = strings.TrimSpace(line); line != "" {
			n := decoding.TextNode(line)
			n.Line = number
			lines = append(lines, n)
		}
	}
	if len(lines) == 0 {
		d.Fail(d.AtLine(1), "", "", "empty: want the addresses of peers, one on each line")
		return nil
	}
	return decoding.MappingNode("services", decoding.MappingNode(name, decoding.MappingNode("peers", decoding.ListNode(lines))))
}

// whole puts the fragments of a configuration together.
type whole struct {
	mu     sync.Mutex // guards file while documents are decoded
	file   *decoder   // of the file
	config *Config
	// fragments are the fragments of the documents, by level and then by source.
	fragments  []*fragment
	incomplete bool // a source is not known yet

	awaited map[string]bool // services that a source may define that is not known yet
	names   *serviceNames   // of all; nil: see serviceNames

	owners   map[string]*fragment // of services; nil for services of the file
	routes   []routeAt            // the places of the routes of config
	shadowed Errors
}

// addServices adds the services of the documents to the file's. The first has
// precedence if its level is higher; at the same level the second is an error.
func (w *whole) addServices() {
	c := w.config
	w.owners = make(map[string]*fragment)
	if c.Services == nil && len(w.fragments) > 0 {
		c.Services = make(map[string]Service)
	}
	for _, f := range w.fragments {
		for _, name := range slices.Sorted(maps.Keys(f.parts.Services)) {
			key := decoding.Join("services", name)
			if _, taken := c.Services[name]; !taken {
				c.Services[name], w.owners[name] = f.parts.Services[name], f
				continue
			}
			level, at := 0, w.file.Place(key)
			if owner := w.owners[name]; owner != nil {
				level, at = owner.level, owner.Place(key)
			}
			w.refuseSecond(f, key, key, level, at.Origin)
		}
	}
}

// refuseSecond records that what f has at key is there before, with the key first at origin, in a
// source of a level.
func (w *whole) refuseSecond(f *fragment, key, first string, level int, origin string) {
	if level == f.level {
		f.Refuse(key, "", "the same as "+first+" at "+origin)
		return
	}
	w.shadowed = append(w.shadowed, f.ErrorAt(key, "not used: "+first+" at "+origin+" has precedence"))
}

// routeAt is the place of a route.
type routeAt struct {
	of    *fragment
	index int
}

func (r routeAt) key() string { return decoding.Item("routes", r.index) }

// addRoutes adds the routes of the documents to the file's, and checks all.
func (w *whole) addRoutes() {
	c := w.config
	file := &fragment{decoder: w.file, parts: parts{Routes: c.Routes}}
	for i := range c.Routes {
		w.routes = append(w.routes, routeAt{file, i})
		c.Routes[i].check(w.file, w.routes[i].key(), c)
	}
	unindexed := make(unindexed)
	total := len(c.Routes)
	for _, f := range w.fragments {
		total += len(f.parts.Routes)
	}
	first := make(map[string]routeAt, total) // by the requests of the routes
	c.Routes = slices.Grow(c.Routes, total-len(c.Routes))
	for _, f := range slices.Insert(slices.Clone(w.fragments), 0, file) {
		for i := range f.parts.Routes {
			r, at := &f.parts.Routes[i], routeAt{f, i}
			r.checkReferences(f.decoder, at, c)
			if r.checked == nil {
				continue
			}
			if unindexed.full(r.checked) {
				f.Refuse(at.key(), "", tooManyRegexps(r.checked))
			}
			before, taken := first[r.checked.Key]
			switch {
			case !taken:
				first[r.checked.Key] = at
				if f != file {
					c.Routes, w.routes = append(c.Routes, *r), append(w.routes, at)
				}
			case before.of == f:
				f.Refuse(at.key(), cmp.Or(r.Host, r.HostRegexp)+r.Path, "the same as "+before.key()+" at "+f.Place(before.key()).Origin)
			default:
				w.refuseSecond(f, at.key(), before.key(), before.of.level, before.of.Place(before.key()).Origin)
			}
		}
	}
}

// awaitServices adds a service without peers for each name that nothing defines, if a
// source that may define it is not known yet. Requests get 503 until then: without their
// routes they would go to the service of a less specific route.
func (w *whole) awaitServices() {
	if !w.incomplete {
		return
	}
	c := w.config
	w.awaited = make(map[string]bool)
	await := func(name string) {
		if _, ok := c.Services[name]; ok || !formats["name"].OK(name) || c.Catalog != nil {
			return
		}
		if c.Services == nil {
			c.Services = make(map[string]Service)
		}
		s := c.newService()
		s.check(newDecoder(""), "", name, &c.Consul) // that it has no source is meant
		c.Services[name], w.awaited[name] = s, true
	}
	names := RoutedServices(c.Routes)
	for _, f := range w.fragments {
		maps.Copy(names, RoutedServices(f.parts.Routes))
	}
	maps.Copy(names, StreamedServices(c.Listeners))
	for name := range names {
		await(name)
	}
}

// ownerOf returns the decoder that knows the lines of a service.
func (w *whole) ownerOf(service string) *decoder {
	if f := w.owners[service]; f != nil {
		return f.decoder
	}
	return w.file
}

// errors returns the errors of the file, then those of each document, each in the order of its
// lines.
func (w *whole) errors() Errors {
	all := w.file.Errs.Sorted()
	for _, f := range w.fragments {
		all = append(all, f.decoder.Errs.Sorted()...)
	}
	return all
}

// addFragments adds the documents of the sources that the configuration names.
func (w *whole) addFragments(sources []Source, decoded *Decoded) {
	type leveled struct {
		level int
		Dynamic
		Source
	}
	var all []leveled
	for _, y := range w.config.Dynamic {
		i := slices.IndexFunc(sources, func(s Source) bool { return s.Name == y.Name() })
		if i < 0 {
			w.incomplete = true
			continue
		}
		all = append(all, leveled{slices.Index(levels, y.Kind()), y, sources[i]})
	}
	slices.SortStableFunc(all, func(a, b leveled) int { return a.level - b.level })
	var documents []writtenDocument
	for _, s := range all {
		for _, doc := range s.Documents {
			documents = append(documents, writtenDocument{doc, s.writer(doc)})
		}
	}
	fragments := decoded.fragments(documents, w)
	for _, s := range all {
		for range s.Documents {
			w.fragments, fragments = append(w.fragments, w.fork(fragments[0], s.level)), fragments[1:]
		}
	}
}
