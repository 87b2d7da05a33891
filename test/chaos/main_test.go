package chaos

import (
	"os"
	"testing"

	"sluice/test/parallel"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(clusters)
	os.Exit(m.Run())
}
