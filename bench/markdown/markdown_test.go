package markdown

import (
	"os"
	"path/filepath"
	"testing"

	"sluice/test/verify"
)

var section = WrittenBy("test")

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "document.md")
	verify.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b := verify.Result(os.ReadFile(path)).Must(t)
	return string(b)
}

func TestOnlyTheSectionIsReplaced(t *testing.T) {
	path := write(t, "# Before\n"+section.begin+"old\n"+section.end+"after\n")
	verify.Succeeds(t, section.Find(path))
	for range 2 {
		verify.NoError(t, section.Replace(path, "new\n"))
		got, want := read(t, path), "# Before\n"+section.begin+"new\n"+section.end+"after\n"
		verify.That(t, got == want, "got %q, want %q", got, want)
	}
}

func TestDocumentWithoutTheSectionIsLeftAlone(t *testing.T) {
	other := WrittenBy("other")
	for _, text := range []string{"", section.begin, section.end + section.begin, other.begin + other.end} {
		path := write(t, text)
		verify.That(t, section.Find(path) != nil && section.Replace(path, "new\n") != nil, "no error for %q", text)
		verify.Equal(t, read(t, path), text, "got")
	}
}

func TestTableIsAligned(t *testing.T) {
	got := Table([][]string{{"proxy", "µs"}, {"sluice", "10"}, {"a", "9.5"}})
	want := "| proxy  |  µs |\n|--------|----:|\n| sluice |  10 |\n| a      | 9.5 |\n"
	verify.That(t, got == want, "got\n%s, want\n%s", got, want)
}

func TestTablesInDocumentsAreCompact(t *testing.T) {
	path := write(t, section.begin+section.end)
	verify.NoError(t, section.Replace(path, "a  b\n\n"+Table([][]string{{"proxy", "µs each"}, {"sluice", "10"}, {"another one", "9.5"}})))
	want := section.begin + "a  b\n\n| proxy | µs each |\n|---|---:|\n| sluice | 10 |\n| another one | 9.5 |\n" + section.end
	got := read(t, path)
	verify.That(t, got == want, "got\n%s, want\n%s", got, want)
}
