package config

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
	"sluice/tags"
	"sluice/test/long"
	"sluice/test/verify"
)

// TestEveryKeyHasARow: who adds a key chooses who may set it.
func TestEveryKeyHasARow(t *testing.T) {
	rows := make(map[string]bool) // false: no key has used it
	for _, r := range rights {
		for key := range strings.FieldsSeq(r.keys) {
			_, twice := rows[r.section+"."+key]
			verify.That(t, !twice, "%s.%s has two rows", r.section, key)
			rows[r.section+"."+key] = false
		}
		verify.That(t, r.keys != "*" || r.setters == 0, "%s.*: a new key would be for more than the file: want a row for each key", r.section)
	}
	for _, key := range keysOf(reflect.TypeFor[Config](), "", decoding.Rules{}) {
		name := strings.TrimSuffix(key.key, ".NAME")
		if _, ok := rows[name]; ok {
			rows[name] = true
			continue
		}
		section := name
		for section != "" {
			section = section[:max(0, strings.LastIndex(section, "."))]
			if _, ok := rows[section+".*"]; ok {
				rows[section+".*"] = true
				break
			}
		}
		verify.That(t, section != "", "%s has no row in rights: who may set it besides the file?", name)
	}
	for row, used := range rows {
		verify.That(t, used, "the row %s is for no key", row)
	}
}

// outside returns the keys of v with a value of their own that a setter may not set.
func outside(v reflect.Value, key string, rights *decoding.Rights, by Setter) (found []string) {
	switch {
	case rights == nil || v.Kind() == reflect.Pointer && v.IsNil():
	case v.Kind() == reflect.Pointer:
		return outside(v.Elem(), key, rights, by)
	case v.Kind() == reflect.Struct && rights.Below != nil:
		absent := reflect.New(v.Type())
		schema.SetDefaults(absent.Interface())
		for _, f := range decoding.Fields(v.Type()) {
			name, value := f.Tag.Get("key"), v.FieldByIndex(f.Index)
			if value.IsZero() || reflect.DeepEqual(value.Interface(), absent.Elem().FieldByIndex(f.Index).Interface()) {
				continue
			}
			at := rights.Below[name]
			if at.Setters&decoding.Setters(by) == 0 {
				found = append(found, decoding.Join(key, name))
				continue
			}
			found = append(found, outside(value, decoding.Join(key, name), at, by)...)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			if one := v.Index(i); decoding.Kind(one.Type()) == reflect.String && rights.Only != nil && !rights.Only.OK(fmt.Sprint(one.Interface())) {
				found = append(found, decoding.Item(key, i))
			}
			found = append(found, outside(v.Index(i), decoding.Item(key, i), rights, by)...)
		}
	case v.Kind() == reflect.Map:
		for _, name := range v.MapKeys() {
			if rights.Only != nil && !rights.Only.OK(name.String()) {
				found = append(found, decoding.Join(key, name.String()))
			}
			found = append(found, outside(v.MapIndex(name), decoding.Join(key, name.String()), rights.At(name.String()), by)...)
		}
	}
	return found
}

// samples are values of all kinds.
var samples = []string{
	"1", "5", "0.5", "50%", "2s", "1m", "16MiB", "true", "false", "a", "star", "secret", "GET", "/x", "https", "^/a(.*)$", "/etc/passwd",
	"unix:/run/x.sock", "127.0.0.1:9", "10.0.0.0/8", "http://127.0.0.1:9/", "X-Real-IP", "x_forwarded_for", "Remote-User", "X-A",
	"h2c", "ewma", "sticky", "tcp", "http", "srv", "gzip", "text/html", "a.example", "308", "v1", "rollback", "prefix", "exact", "client_address",
}

// randomKeys returns keys of a struct with random values, most of them of the right kind.
func randomKeys(r *rand.Rand, t reflect.Type, depth int) any {
	sample := func() string { return samples[r.IntN(len(samples))] }
	switch decoding.Kind(t) {
	case reflect.Pointer:
		return randomKeys(r, t.Elem(), depth)
	case reflect.Struct:
		keys := make(tags.Keys)
		fields := decoding.Fields(t)
		for range r.IntN(4) {
			f := fields[r.IntN(len(fields))]
			if depth > 0 {
				keys[f.Tag.Get("key")] = randomKeys(r, f.Type, depth-1)
			}
		}
		if f := fields[r.IntN(len(fields))]; r.IntN(8) == 0 {
			keys[strings.ToUpper(f.Tag.Get("key"))] = sample()
		}
		return keys
	case reflect.Slice:
		if decoding.Kind(t.Elem()) == reflect.Struct {
			return []tags.Keys{randomKeys(r, t.Elem(), depth).(tags.Keys)}
		}
		return []string{sample(), sample()}[:1+r.IntN(2)]
	case reflect.Map:
		if decoding.Kind(t.Elem()) == reflect.Struct {
			return tags.Keys{"x": randomKeys(r, t.Elem(), depth)}
		}
		return tags.Keys{sample(): sample()}
	}
	return sample()
}

// TestNobodySetsMoreThanTheTableAllows: whatever a document, a tag or the meta sets, no value
// of a key that is not theirs is decoded, and the error names such a key.
func TestNobodySetsMoreThanTheTableAllows(t *testing.T) {
	long.Sequential(t)
	r := rand.New(rand.NewPCG(verify.Seed(t), 1))
	refused, accepted := 0, 0
	count := func(err error) {
		if err == nil {
			accepted++
		} else if strings.Contains(err.Error(), "cannot set this") {
			refused++
		}
	}
	check := func(by Setter, written string, err error, v any, rights *decoding.Rights) {
		t.Helper()
		found := outside(reflect.ValueOf(v), "", rights, by)
		verify.Require(t, len(found) == 0, "%s sets %s\nby %s\nthe error is %v", by, strings.Join(found, ", "), written, err)
	}
	c := mustParse(t, "catalog: { tags: [sluice] }")
	for range 3000 {
		route, _ := randomKeys(r, routeType, 4).(tags.Keys)
		service, _ := randomKeys(r, reflect.TypeFor[Service](), 4).(tags.Keys)
		for _, by := range []Setter{ByTag, ByRegistration} {
			decoded, err := DecodeRoute(route, by, nil)
			count(err)
			check(by, route.String(), err, decoded, allRights().Below["routes"])
		}
		var set Service
		_, err := decodeKeys(service, ByTag, allRights().Below["services"].Entry, &set)
		count(err)
		check(ByTag, service.String(), err, set, allRights().Below["services"].Entry)
		text := verify.Result(yaml.Marshal(map[string]any{"services": tags.Keys{"x": service}, "routes": []tags.Keys{route}})).Must(t)
		f := decodeDocument(writtenDocument{Document{Name: "consul_kv:a.yaml", Text: string(text)}, ByDocument}, c, nil)
		if len(f.Errs) == 0 {
			count(nil)
		} else {
			count(f.Errs)
		}
		check(ByDocument, string(text), f.Errs, f.parts.Routes, allRights().Below["routes"])
		check(ByDocument, string(text), f.Errs, f.parts.Services, allRights().Below["services"])
	}
	verify.That(t, refused >= 300 && accepted >= 300, "%d refused, %d accepted: want many of both", refused, accepted)
}

// TestEachKeyOfTheFileIsRefused sets each key alone, as each setter.
func TestEachKeyOfTheFileIsRefused(t *testing.T) {
	for _, by := range []Setter{ByDocument, ByTag, ByRegistration} {
		for section, typ := range map[string]reflect.Type{"routes": routeType, "services": reflect.TypeFor[Service]()} {
			root := allRights().Below[section]
			if root.Entry != nil {
				root = root.Entry
			}
			var walk func(of reflect.Type, rights *decoding.Rights, path []string)
			walk = func(of reflect.Type, rights *decoding.Rights, path []string) {
				for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice && decoding.Kind(of.Elem()) == reflect.Struct {
					of = of.Elem()
				}
				if decoding.Kind(of) == reflect.Struct && rights.Below != nil {
					for _, f := range decoding.Fields(of) {
						if at := rights.Below[f.Tag.Get("key")]; at != rights {
							walk(f.Type, at, append(slices.Clip(path), f.Tag.Get("key")))
						}
					}
					return
				}
				if of.Kind() == reflect.Map && decoding.Kind(of.Elem()) == reflect.Struct {
					walk(of.Elem(), rights.Entry, append(slices.Clip(path), "x"))
					return
				}
				keys := make(tags.Keys)
				keys.Set("1", path...)
				_, err := decodeKeys(keys, by, root, reflect.New(typ).Interface())
				refused := err != nil && strings.Contains(err.Error(), by.String()+" cannot set this")
				may := rights.Setters&decoding.Setters(by) != 0
				verify.That(t, refused != may, "%s, %s: %v, the table says %t", by, strings.Join(path, "."), err, may)
			}
			walk(typ, root, nil)
		}
	}
}
