package scheduler

import (
	"errors"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// maxNodes is how many values a file may hold, those counted anew that aliases
// repeat.
const maxNodes = 100_000

// Bounds for the parser, whose time grows with the square of both.
const (
	maxFile  = 256 << 10 // bytes
	maxDepth = 100       // of brackets
)

// decoder fills structs from the tree that the YAML parser made, and goes on
// after what is wrong.
type decoder struct {
	*source
	base    string // that relative paths are below
	anchors map[string]ast.Node
	left    int // values that may yet be read
}

// decode fills the struct that v points to from YAML, and tells whether it went
// through all of it. What is wrong is noted in src.
func decode(src *source, data []byte, base string, v any) bool {
	root, ok := parse(src, data)
	if !ok {
		return false
	}
	d := &decoder{source: src, base: base, anchors: map[string]ast.Node{}, left: maxNodes}
	ast.Walk(d, root)
	if !d.noLoop() {
		return false
	}
	d.value("", root, reflect.ValueOf(v).Elem(), options{})
	if d.left < 0 {
		d.add(place{}, "", "more than %d values, with those that aliases repeat", maxNodes)
	}
	return d.left >= 0
}

// parse returns the one document of a file.
func parse(src *source, data []byte) (ast.Node, bool) {
	if at, problem := unreadable(data); problem != "" {
		src.add(at, "", "%s", problem)
		return nil, false
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		src.addSyntax(err)
		return nil, false
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if _, directive := doc.Body.(*ast.DirectiveNode); doc.Body == nil || directive {
			continue
		}
		if root != nil {
			src.add(placeOf(doc.Body), "", "a second document: the file has one")
			return nil, false
		}
		root = doc.Body
	}
	if root == nil {
		src.add(place{}, "", "there is nothing in it")
	}
	return root, root != nil
}

// unreadable says what keeps data from being given to the parser at all.
func unreadable(data []byte) (place, string) {
	if len(data) > maxFile {
		return place{}, "is longer than " + strconv.Itoa(maxFile>>10) + " KiB"
	}
	depth := 0
	for i, line := range strings.Split(string(data), "\n") {
		at := place{line: i + 1, width: 1}
		line = strings.TrimSuffix(line, "\r")
		comment := false
		for _, r := range line {
			at.column++
			switch {
			case r == utf8.RuneError:
				return at, "this is not UTF-8"
			case unicode.IsControl(r) && r != '\t':
				return at, "a control character"
			case r == '#':
				comment = true
			case comment:
			case r == '[' || r == '{':
				depth++
			case r == ']' || r == '}':
				depth = max(0, depth-1)
			}
			if depth > maxDepth {
				return at, "more than " + strconv.Itoa(maxDepth) + " brackets are open"
			}
		}
	}
	return place{}, ""
}

// addSyntax notes an error of the parser, with what most likely led to it.
func (s *source) addSyntax(err error) {
	var e yaml.Error
	if !errors.As(err, &e) || e.GetToken() == nil {
		s.add(place{}, "", "YAML: %v", err)
		return
	}
	at, hint := tokenPlace(e.GetToken()), ""
	line := s.excerpt(place{line: at.line, column: 1, width: 1 << 20})
	if secretLine.MatchString(line) {
		at.width = 0
	}
	switch {
	case strings.HasPrefix(e.GetMessage(), "'@'"), strings.Contains(line, "schedule:"):
		hint = `: a schedule stands in quotes, as in "@daily" or "30 2 * * *"`
	case strings.Contains(line, "\t"):
		hint = ": indent with spaces, not tabs"
	}
	s.add(at, "", "YAML: %s%s", e.GetMessage(), hint)
}

// Visit collects the anchors.
func (d *decoder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		d.anchors[a.Name.String()] = a.Value
	}
	return d
}

// aliases collects the names of aliases in a tree.
type aliases map[string]place

// Visit notes an alias.
func (a aliases) Visit(n ast.Node) ast.Visitor {
	if alias, ok := n.(*ast.AliasNode); ok {
		a[alias.Value.String()] = placeOf(n)
	}
	return a
}

// noLoop tells whether no anchor's value has an alias that leads back to it.
func (d *decoder) noLoop() bool {
	done := map[string]bool{} // false: being looked at
	var visit func(name string) bool
	visit = func(name string) bool {
		if d.anchors[name] == nil || done[name] {
			return true
		}
		done[name] = false
		inner := aliases{}
		ast.Walk(inner, d.anchors[name])
		for _, next := range slices.Sorted(maps.Keys(inner)) {
			if over, begun := done[next]; begun && !over {
				d.add(inner[next], "", "this alias leads back to where it stands")
				return false
			}
			if !visit(next) {
				return false
			}
		}
		done[name] = true
		return true
	}
	for _, name := range slices.Sorted(maps.Keys(d.anchors)) {
		if !visit(name) {
			return false
		}
	}
	return true
}

// options are those of a struct tag.
type options struct {
	required, path, location, raw, list, inline bool
}

// field is what a key of a mapping leads to.
type field struct {
	index   int
	key     string // of the tag, which a Secret's keys begin with
	part    string // of a Secret: "file", "env" or "inline"
	options options
}

const (
	fileSuffix = "-file"
	envSuffix  = "-env"
)

// fieldsOf lists the keys of a struct, in its order.
func fieldsOf(t reflect.Type) (keys []string, fields map[string]field) {
	fields = map[string]field{}
	for i := range t.NumField() {
		words := strings.Split(t.Field(i).Tag.Get("yaml"), ",")
		f := field{index: i, key: words[0]}
		for _, word := range words[1:] {
			f.options.set(word)
		}
		if !t.Field(i).IsExported() || f.key == "-" {
			continue
		}
		names := map[string]string{f.key: ""}
		order := []string{f.key}
		if t.Field(i).Type == reflect.TypeFor[Secret]() {
			names = map[string]string{f.key: "inline", f.key + fileSuffix: "file", f.key + envSuffix: "env"}
			order = []string{f.key + fileSuffix, f.key + envSuffix}
			if f.options.inline {
				order = append([]string{f.key}, order...)
			}
		}
		keys = append(keys, order...)
		for name, part := range names {
			f.part = part
			fields[name] = f
		}
	}
	return keys, fields
}

func (o *options) set(word string) {
	switch word {
	case "required":
		o.required = true
	case "path":
		o.path = true
	case "location":
		o.location = true
	case "raw":
		o.raw = true
	case "list":
		o.list = true
	case "inline":
		o.inline = true
	}
}

// value fills v from a node, and notes at path what is wrong.
func (d *decoder) value(path string, n ast.Node, v reflect.Value, o options) {
	if d.left--; d.left < 0 {
		return
	}
	n, ok := d.resolve(path, n)
	if !ok {
		return
	}
	if _, null := n.(*ast.NullNode); null {
		d.add(d.at(path, n), path, "has no value: give it one, or remove the key")
		return
	}
	if read, ok := leaves[v.Type()]; ok {
		d.leaf(path, n, v, read)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, n, v.Elem(), o)
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Map:
		d.table(path, n, v, o)
	case reflect.Slice:
		d.list(path, n, v, o)
	case reflect.String:
		d.text(path, n, v, o)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.add(placeOf(n), path, "want true or false")
			return
		}
		v.SetBool(b.Value)
	case reflect.Int:
		i, err := strconv.ParseUint(n.GetToken().Value, 10, 31)
		if _, number := n.(*ast.IntegerNode); !number || err != nil {
			d.add(placeOf(n), path, "want a whole number, 0 or more")
			return
		}
		v.SetInt(int64(i))
	}
}

// resolve goes from anchors and aliases to the node that they stand for.
func (d *decoder) resolve(path string, n ast.Node) (ast.Node, bool) {
	for {
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.AliasNode:
			name := t.Value.String()
			target, ok := d.anchors[name]
			if !ok {
				d.add(placeOf(n), path, "there is no anchor &%s; a text that begins with * stands in quotes", name)
				return nil, false
			}
			n = target
		case *ast.TagNode:
			d.add(placeOf(n), path, "tags are not read; a text stands in quotes")
			return nil, false
		case nil:
			return nil, false
		default:
			return n, true
		}
	}
}

// scalar is the text of a node that is one word or text.
func scalar(n ast.Node) (string, bool) {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value, true
	case *ast.LiteralNode:
		return t.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// kind says what a node is, for people.
func kind(n ast.Node) string {
	switch n.(type) {
	case ast.MapNode:
		return "keys and values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.BoolNode:
		return "true or false"
	}
	return "a number"
}

func (d *decoder) leaf(path string, n ast.Node, v reflect.Value, read leaf) {
	text, ok := scalar(n)
	if !ok {
		d.add(d.at(path, n), path, "want one word, not %s", kind(n))
		return
	}
	d.places[path] = placeOf(n)
	value, err := read(text)
	if err != nil {
		d.add(placeOf(n), path, "%s: %v", quote(text), err)
		return
	}
	v.Set(reflect.ValueOf(value))
}

// quote shortens what is shown of a wrong value.
func quote(text string) string {
	const most = 60
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return strconv.Quote(text)
}

var (
	variable = regexp.MustCompile(`\$\{[^}]*\}?`)
	scheme   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+:`)
)

func (d *decoder) text(path string, n ast.Node, v reflect.Value, o options) {
	text, ok := scalar(n)
	at := d.at(path, n)
	_, plain := n.(*ast.StringNode)
	_, block := n.(*ast.LiteralNode)
	switch {
	case !ok:
		d.add(at, path, "want text, not %s", kind(n))
		return
	case !plain && !block:
		d.add(placeOf(n), path, "want text, not %s: put it in quotes", kind(n))
		return
	case text == "" && !o.raw:
		d.add(placeOf(n), path, "is empty: give it a value, or remove the key")
		return
	}
	d.places[path] = placeOf(n)
	if name := variable.FindString(text); name != "" && !o.raw {
		d.add(placeOf(n), path, "%s is not replaced here: write the value itself; secrets are read through keys that end in -file or -env", name)
	}
	if o.path || o.location && !scheme.MatchString(text) {
		text = d.file(path, n, text)
	}
	v.SetString(text)
}

// file is a path below the folder of the configuration.
func (d *decoder) file(path string, n ast.Node, name string) string {
	if strings.HasPrefix(name, "~") {
		d.add(placeOf(n), path, "~ is not replaced here: write the path in full")
	}
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(d.base, name)
}

// list fills a slice. One word is a list of one, except where a list is wanted.
func (d *decoder) list(path string, n ast.Node, v reflect.Value, o options) {
	elem := v.Type().Elem()
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, word := scalar(n); !word || o.list || elem.Kind() == reflect.Struct {
			d.add(d.at(path, n), path, "want a list, not %s", kind(n))
			return
		}
		one := reflect.New(elem).Elem()
		d.value(path, n, one, o)
		v.Set(reflect.Append(v, one))
		return
	}
	for i, item := range seq.Values {
		one, itemPath := reflect.New(elem).Elem(), path+"["+strconv.Itoa(i)+"]"
		d.places[itemPath] = placeOf(item)
		d.value(itemPath, item, one, o)
		v.Set(reflect.Append(v, one))
	}
}

// table fills a map by name.
func (d *decoder) table(path string, n ast.Node, v reflect.Value, o options) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(path, n) {
		one := reflect.New(v.Type().Elem()).Elem()
		entryPath := join(path, e.key)
		d.places[entryPath] = e.at
		if one.Type() == reflect.TypeFor[Secret]() {
			d.secretValue(entryPath, e, one)
		} else {
			d.value(entryPath, e.node, one, o)
		}
		if one.Kind() == reflect.Pointer && !one.IsNil() {
			one.Elem().FieldByName("Name").SetString(e.key)
		}
		v.SetMapIndex(reflect.ValueOf(e.key), one)
	}
}

// secretValue fills a Secret that is the value of a header or a variable: text,
// or "file" or "env" and what names it.
func (d *decoder) secretValue(path string, e entry, v reflect.Value) {
	n, ok := d.resolve(path, e.node)
	if !ok {
		return
	}
	if _, ok := n.(ast.MapNode); ok {
		var s struct {
			File string `yaml:"file,path"`
			Env  string `yaml:"env"`
		}
		d.structure(path, n, reflect.ValueOf(&s).Elem())
		if (s.File == "") == (s.Env == "") {
			d.add(e.at, path, "want either file or env")
		}
		d.checkEnv(join(path, "env"), s.Env)
		v.Set(reflect.ValueOf(Secret{File: s.File, Env: s.Env}))
		return
	}
	d.hideNode(n)
	var text string
	d.text(path, n, reflect.ValueOf(&text).Elem(), options{raw: true})
	if namesSecret(e.key) {
		d.add(e.at, path, "this looks like a secret, which does not stand in this file: write {file: PATH} or {env: NAME}")
	}
	v.Set(reflect.ValueOf(Secret{Inline: repository.Secret(text)}))
}

// hideNode keeps what may be a secret out of excerpts.
func (d *decoder) hideNode(n ast.Node) {
	d.hide(placeOf(n), 1+strings.Count(strings.TrimSpace(n.String()), "\n"))
}

func (d *decoder) checkEnv(path, name string) {
	if name != "" && !envName.MatchString(name) {
		d.hide(d.places[path], 1) // it may be the secret itself
		d.add(d.places[path], path, "want the name of an environment variable: letters, digits and _")
	}
}

// structure fills a struct, with its defaults first.
func (d *decoder) structure(path string, n ast.Node, v reflect.Value) {
	if s, ok := v.Addr().Interface().(interface{ setDefaults() }); ok {
		s.setDefaults()
	}
	keys, fields := fieldsOf(v.Type())
	if _, ok := n.(ast.MapNode); !ok {
		d.add(d.at(path, n), path, "want keys and values, not %s", kind(n))
		return
	}
	seen := map[int]string{}
	for _, e := range d.entries(path, n) {
		f, ok := fields[e.key]
		if !ok {
			d.add(e.at, join(path, e.key), "unknown key%s", d.instead(e.key, keys))
			d.hideNode(e.node)
			continue
		}
		if old := seen[f.index]; old != "" {
			d.add(e.at, join(path, e.key), "either this or %s", old)
		}
		seen[f.index] = e.key
		d.places[join(path, e.key)] = e.at
		if f.part != "" {
			d.secret(path, e, f, v.Field(f.index))
		} else {
			d.value(join(path, e.key), e.node, v.Field(f.index), f.options)
		}
	}
	d.missing(path, n, v.Type(), seen)
}

// missing notes keys that have to be there and are not.
func (d *decoder) missing(path string, n ast.Node, t reflect.Type, seen map[int]string) {
	_, fields := fieldsOf(t)
	for i := range t.NumField() {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if f := fields[key]; f.options.required && seen[i] == "" {
			or := ""
			if f.part != "" {
				or = ", and so are " + key + fileSuffix + " and " + key + envSuffix
			}
			d.add(d.at(path, n), join(path, key), "is missing%s", or)
		}
	}
}

// secret fills the part of a Secret that a key stands for.
func (d *decoder) secret(parent string, e entry, f field, v reflect.Value) {
	s := v.Addr().Interface().(*Secret)
	path := join(parent, e.key)
	switch f.part {
	case "file":
		d.value(path, e.node, reflect.ValueOf(&s.File).Elem(), options{path: true})
	case "env":
		d.value(path, e.node, reflect.ValueOf(&s.Env).Elem(), options{})
		d.checkEnv(path, s.Env)
	default:
		d.hideNode(e.node)
		if !f.options.inline {
			d.add(e.at, path, "a secret does not stand in this file: put it into a file and name that with %s, or name a variable of the environment with %s", f.key+fileSuffix, f.key+envSuffix)
			return
		}
		d.value(path, e.node, reflect.ValueOf(&s.Inline).Elem(), options{})
	}
}

// otherWords are what other tools call our keys, or where people look for them.
var otherWords = map[string]string{
	"metrics": "http", "server": "http", "api": "http",
	"cron": "schedule", "tz": "timezone", "time-zone": "timezone", "interval": "schedule",
	"keep": "retention", "retain": "retention", "prune": "retention",
	"path": "url", "location": "url", "repo": "repositories", "repository": "repositories",
	"ca": "cacert", "server_name": "server-name", "tags": "labels", "notifications": "notify",
	"level": "verify", "args": "command", "env": "environment", "argv": "command",
}

// instead says what to write for an unknown key.
func (d *decoder) instead(key string, keys []string) string {
	if other := otherWords[strings.ToLower(key)]; other != "" && slices.Contains(keys, other) {
		return "; did you mean " + other + "?"
	}
	if namesSecret(key) && slices.Contains(keys, "bucket") {
		return ": keys to S3 do not stand in this file; they come from the environment, ~/.aws or the machine's role, as with any AWS tool"
	}
	if near := didYouMean(key, keys); near != "" {
		return near
	}
	return "; there are " + list(keys, "and")
}

// entry is a key of a mapping with its value.
type entry struct {
	key  string
	at   place
	node ast.Node
}

// entries are those of a mapping: its own, then those of mappings that "<<"
// merges into it, as far as it doesn't have them.
func (d *decoder) entries(path string, n ast.Node) []entry {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.add(d.at(path, n), path, "want keys and values, not %s", kind(n))
		return nil
	}
	var all []entry
	var merged []ast.Node
	lines := map[string]int{}
	for i := m.MapRange(); i.Next(); {
		key := i.Key()
		at := placeOf(key)
		switch name, ok := scalar(key); {
		case key.IsMergeKey():
			merged = append(merged, i.Value())
		case !ok:
			d.add(at, path, "a key is one word")
		case lines[name] != 0:
			d.add(at, join(path, name), "is there twice, first in line %d", lines[name])
			d.hideNode(i.Value())
		default:
			lines[name] = at.line
			all = append(all, entry{name, at, i.Value()})
		}
	}
	for _, n := range merged {
		for _, e := range d.merge(path, n) {
			if lines[e.key] == 0 {
				lines[e.key] = e.at.line
				all = append(all, e)
			}
		}
	}
	return all
}

// merge are the entries that "<<" brings: of a mapping, or of a list of them.
func (d *decoder) merge(path string, n ast.Node) []entry {
	if d.left--; d.left < 0 {
		return nil
	}
	n, ok := d.resolve(path, n)
	if !ok {
		return nil
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return d.entries(path, n)
	}
	var all []entry
	for _, item := range seq.Values {
		all = append(all, d.merge(path, item)...)
	}
	return all
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// at is the place of the key that leads to path, or else that of the node.
func (d *decoder) at(path string, n ast.Node) place {
	if at, ok := d.places[path]; ok {
		return at
	}
	return placeOf(n)
}

// placeOf is where a node begins.
func placeOf(n ast.Node) place {
	switch t := n.(type) {
	case *ast.MappingNode:
		if len(t.Values) > 0 {
			return placeOf(t.Values[0])
		}
	case *ast.MappingValueNode:
		return placeOf(t.Key)
	case *ast.AliasNode:
		at := tokenPlace(t.Start)
		at.width = 1 + utf8.RuneCountInString(t.Value.String())
		return at
	}
	return tokenPlace(n.GetToken())
}

func tokenPlace(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{}
	}
	text, _, _ := strings.Cut(strings.TrimSpace(t.Origin), "\n")
	return place{
		line: t.Position.Line, column: max(1, t.Position.Column),
		width: max(1, utf8.RuneCountInString(text)),
	}
}
