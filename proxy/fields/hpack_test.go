package fields

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"sluice/test/verify"
)

func fieldsOf(f *Fields) (list []hpack.HeaderField) {
	for i := range f.list {
		field := &f.list[i]
		list = append(list, hpack.HeaderField{Name: string(f.nameOf(field)), Value: string(f.value(field))})
	}
	return list
}

func equalFields(a, b []hpack.HeaderField) bool {
	return slices.EqualFunc(a, b, func(a, b hpack.HeaderField) bool { return a.Name == b.Name && a.Value == b.Value })
}

func randomFields(random *rand.Rand) (list []hpack.HeaderField) {
	names := []string{":method", ":path", ":scheme", "host", "cookie", "x-a", "user-agent", "content-length", strings.Repeat("n", 100)}
	for range random.IntN(20) {
		value := make([]byte, random.IntN(60))
		for i := range value {
			value[i] = byte(random.UintN(256))
			if random.IntN(20) > 0 {
				value[i] = 'a' + value[i]%26
			}
		}
		list = append(list, hpack.HeaderField{
			Name: names[random.IntN(len(names))], Value: string(value), Sensitive: random.IntN(10) == 0,
		})
	}
	return list
}

// The decoder agrees with the encoder of x/net, with table sizes that change. A list that is too
// long changes the dynamic table as it would otherwise, so that the next blocks of the connection
// are decoded.
func TestDecodesWhatOthersEncode(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		const limit, blocks = 1000, 100
		var block bytes.Buffer
		encoder, decoder := hpack.NewEncoder(&block), NewHPACKDecoder(limit)
		var fields Fields
		refused := 0
		for range blocks {
			block.Reset()
			if random.IntN(10) == 0 {
				encoder.SetMaxDynamicTableSize(random.Uint32N(InitialTableBytes + 1))
			}
			want, size := randomFields(random), 0
			for range random.IntN(3) {
				want = append(want, hpack.HeaderField{Name: fmt.Sprint("x", random.IntN(3)), Value: strings.Repeat("v", random.IntN(3000))})
			}
			for _, f := range want {
				encoder.WriteField(f)
				size += int(f.Size())
			}
			err, got := decoder.Decode(block.Bytes(), &fields), fieldsOf(&fields)
			if size > limit {
				refused++
				verify.Require(t, err == ErrListTooLong && len(got) == 0, "seed %d: %v, %d fields of a list of %d", seed, err, len(got), size)
				continue
			}
			verify.Require(t, err == nil && equalFields(got, want), "seed %d: got %q, %v, want %q", seed, got, err, want)
		}
		verify.That(t, refused > 0 && refused < blocks, "seed %d: %d of %d lists were too long", seed, refused, blocks)
	}
}

// updateBytes returns the length of the size update at the start of block; 0: there is none.
func updateBytes(block []byte) int {
	if len(block) == 0 || block[0]&0xe0 != 0x20 {
		return 0
	}
	n := 1
	if block[0]&0x1f == 0x1f {
		for n < len(block) && block[n]&0x80 != 0 {
			n++
		}
		n++
	}
	return min(n, len(block))
}

// requireNames requires what the decoder notes about fields.
func requireNames(t *testing.T, fields *Fields) {
	for i := range fields.list {
		field := &fields.list[i]
		n, badName := classify(fields.nameOf(field))
		bad := badName || !validValue(fields.value(field))
		verify.Require(t, field.name == n && field.malformed == bad && field.malformedName == badName,
			"%q: name %d, malformed %t; want %d, %t", fields.nameOf(field), field.name, field.malformed, n, bad)
	}
}

// Two blocks, since the first one fills the dynamic table for the second.
func FuzzHPACK(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range randomFields(random) {
			encoder.WriteField(field)
		}
		first := block.Len()
		for _, field := range randomFields(random) {
			encoder.WriteField(field)
		}
		f.Add(block.Bytes()[:first], block.Bytes()[first:])
	}
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x82}, []byte{0x20, 0x3f, 0xe1, 0x1f, 0x86})
	f.Add([]byte{0x40, 0x01, 'a', 0x81, 0xff}, []byte{0xbe})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		decoder, oracle := NewHPACKDecoder(UsualListBytes), hpack.NewDecoder(InitialTableBytes, nil)
		var fields Fields
		for _, block := range [][]byte{first, second} {
			err := decoder.Decode(block, &fields)
			for n := updateBytes(block); err == nil && n > 0; n = updateBytes(block) {
				if _, err := oracle.DecodeFull(block[:n]); err != nil { // x/net refuses the second one in a block
					t.Fatalf("accepted %x, other: %v", block[:n], err)
				}
				block = block[n:]
			}
			want, oracleErr := oracle.DecodeFull(block)
			if err != nil {
				return
			}
			verify.Require(t, oracleErr == nil, "accepted %x as %q, other: %v", block, fieldsOf(&fields), oracleErr)
			got := fieldsOf(&fields)
			verify.Require(t, equalFields(got, want), "%x: got %q, want %q", block, got, want)
			requireNames(t, &fields)
		}
	})
}

// A small block must not become a large list: CVE-2016-6581.
func TestListIsBounded(t *testing.T) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("v", 4000)})
	bomb := append(block.Bytes(), bytes.Repeat([]byte{0x80 | hpackEntries + 1}, 20)...)
	var fields Fields
	verify.Equal(t, NewHPACKDecoder(UsualListBytes).Decode(bomb, &fields), ErrListTooLong, "indexed")
	empty := append([]byte{0x40, 1, 'x', 0}, bytes.Repeat([]byte{0x80 | hpackEntries + 1}, 4000)...)
	verify.Equal(t, NewHPACKDecoder(UsualListBytes).Decode(empty, &fields), ErrListTooLong, "empty values")
	verify.That(t, cap(fields.text) <= 2*UsualListBytes && len(fields.list) <= UsualListBytes/fieldOverhead+1, "%d bytes, %d fields", cap(fields.text), len(fields.list))
}

// Nor may it make its reader copy and check megabytes that nobody keeps: two bytes name a field by
// four kilobytes of the dynamic table.
func TestNamesOfATooLongListAreBounded(t *testing.T) {
	const long = 4000
	names := func(kind byte, bits uint8, length, n int) []byte {
		first := appendInteger([]byte{0x40}, 0, 7, length)
		first = append(append(first, strings.Repeat("n", length)...), 1, 1) // a value that is malformed
		again := append(appendInteger(nil, kind, bits, hpackEntries+1), 0)
		return append(first, bytes.Repeat(again, n)...)
	}
	var fields Fields
	for _, literal := range []struct {
		what string
		kind byte
		bits uint8
	}{{"not in the table", 0, 4}, {"never in the table", 0x10, 4}, {"in the table", 0x40, 6}} {
		bomb := names(literal.kind, literal.bits, long, 1000)
		verify.Equal(t, NewHPACKDecoder(UsualListBytes).Decode(bomb, &fields), ErrExpansion, "%s: %d bytes, decoded", literal.what, len(bomb))
		many := names(literal.kind, literal.bits, 30, 20_000)
		verify.Equal(t, NewHPACKDecoder(UsualListBytes).Decode(many, &fields), ErrListTooLong, "%s: %d bytes of a usual name, decoded", literal.what, len(many))
	}
}

// randomResponse returns a status and fields with names as servers write them.
func randomResponse(random *rand.Rand) (status int, list []hpack.HeaderField) {
	names := []string{"Content-Type", "set-cookie", "Authorization", "proxy-authorization", "X-A", "etag", strings.Repeat("N", 200)}
	for range random.IntN(10) {
		list = append(list, hpack.HeaderField{Name: names[random.IntN(len(names))], Value: strings.Repeat("v", random.IntN(300))})
	}
	return 100 + random.IntN(500), list
}

func isSecret(name string) bool {
	return name == "set-cookie" || name == "authorization" || name == "proxy-authorization"
}

// What the encoder writes is what others read.
func TestOthersDecodeHPACK(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	oracle := hpack.NewDecoder(InitialTableBytes, nil)
	for range 500 {
		status, list := randomResponse(random)
		out, want := AppendHPACKStatus(nil, status), []hpack.HeaderField{{Name: ":status", Value: fmt.Sprint(status)}}
		for i, f := range list {
			if i%2 == 0 {
				out = AppendHPACKField(out, []byte(f.Name), []byte(f.Value))
			} else {
				out = AppendHPACKLine(out, []byte(f.Name+": "+f.Value+"\r\n"))
			}
			want = append(want, hpack.HeaderField{Name: strings.ToLower(f.Name), Value: f.Value})
		}
		got := verify.Result(oracle.DecodeFull(out)).Must(t)
		verify.Require(t, equalFields(got, want), "got %q, want %q", got, want)
		for _, f := range got {
			verify.Require(t, f.Sensitive == isSecret(f.Name), "%s: never indexed: %t", f.Name, f.Sensitive)
		}
	}
}

func TestOthersDecodeRequestsInHPACK(t *testing.T) {
	oracle := hpack.NewDecoder(InitialTableBytes, nil)
	for _, method := range []string{"GET", "POST", "PUT"} {
		for _, scheme := range []string{"http", "https"} {
			for _, path := range []string{"/", "/p?q"} {
				out := AppendHPACKRequest(nil, []byte(method), scheme, []byte("a:1"), []byte(path))
				want := []hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: scheme}, {Name: ":authority", Value: "a:1"}, {Name: ":path", Value: path}}
				got := verify.Result(oracle.DecodeFull(out)).Must(t)
				verify.That(t, equalFields(got, want), "got %q, want %q", got, want)
			}
		}
	}
	got := verify.Result(oracle.DecodeFull(AppendHPACKRequest(nil, []byte("GET"), "http", nil, []byte("/")))).Must(t)
	verify.Equal(t, len(got), 3, "fields without an authority")
}
