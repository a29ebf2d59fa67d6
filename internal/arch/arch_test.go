// Package arch holds the test that keeps imports pointing down.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/etcd-lifeboat/lifeboat/"

// layers lists the packages from the top down; those on one line may not
// import each other. The longest matching prefix counts.
var layers = [][]string{
	{"cmd", "e2e", "bench"},
	{"scheduler"},
	{"internal/prove"},
	{"internal/server", "internal/etcdctl2"},
	{"backup", "restore", "forensic"},
	{"repository", "internal/datadir"},
	{"storage", "walcodec", "snapcodec"},
	{"internal/atomicfile", "internal/fixture", "internal/s3server"},
}

func layerOf(pkg string) (layer int, owner string) {
	layer = -1
	for i, names := range layers {
		for _, name := range names {
			if (pkg == name || strings.HasPrefix(pkg, name+"/")) && len(name) > len(owner) {
				layer, owner = i, name
			}
		}
	}
	return layer, owner
}

// imports maps each package folder to what its non-test files import of this module.
func imports(t *testing.T) map[string][]string {
	root := filepath.Join("..", "..")
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "build" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if d.IsDir() && p != root {
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return filepath.SkipDir
			}
		}
		if filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		found[pkg] = append(found[pkg], ours(file.Imports, t)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestImportsPointDown(t *testing.T) {
	for pkg, deps := range imports(t) {
		from, owner := layerOf(pkg)
		if from < 0 {
			t.Errorf("package %s has no layer: add it to layers, at the height where it belongs", pkg)
			continue
		}
		for _, dep := range deps {
			to, depOwner := layerOf(dep)
			if to < from || (to == from && depOwner != owner) {
				t.Errorf("%s imports %s, which is not below it", path.Join(module, pkg), dep)
			}
		}
	}
}

// ours returns the imports of this module, relative to it.
func ours(specs []*ast.ImportSpec, t *testing.T) []string {
	var pkgs []string
	for _, spec := range specs {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if rel, ok := strings.CutPrefix(name, module); ok {
			pkgs = append(pkgs, rel)
		}
	}
	return pkgs
}
