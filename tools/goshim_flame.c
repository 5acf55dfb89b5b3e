/*
 * The forms of a profile: folded stacks, which other tools read, and a picture of its own.
 *
 * The picture is one SVG with all that it needs: its colours follow the reader's light or dark scheme, titles say what a
 * frame stands for, and a script of some lines zooms into what is clicked. Frames are as wide as their time and stand below who
 * called them, in the order of their names, so that two pictures of the same program look alike. Warm is running, cold is
 * waiting; the middle is waiting for a processor.
 */
#include "goshim_profile.h"

#include "compare.h"

#include <string.h>

enum {
	WIDTH = 1200,
	ROW = 18,
	TOP = 58,
	MARGIN = 10,
	BOTTOM = 14,
	LETTER = 7, /* px a letter, about */
};
static const double narrowest = 0.25; /* px; what is narrower is left out */

static const char style[] =
    ":root{--bg:#fff;--fg:#1a1d21;--soft:#5b6470;--edge:#fff;--n:#dfe3e8;--r0:#ffb38a;--r1:#ffc48f;--r2:#ffa680;"
    "--w0:#a9cdf5;--w1:#b9d9f2;--w2:#9fc3ee;--q0:#d9c2ee;--q1:#e2cdf2;--q2:#cfb5e8}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--soft:#9aa4b0;--edge:#14171b;--n:#343b44;"
    "--r0:#8f4526;--r1:#9c5a24;--r2:#84391f;--w0:#24517f;--w1:#2b5f86;--w2:#1f4674;--q0:#5b3d78;--q1:#694888;--q2:#4f336b}}\n"
    "svg{background:var(--bg);font:12px ui-monospace,monospace}text{fill:var(--fg)}\n"
    ".title{font:600 16px system-ui,sans-serif}.soft{font:12px system-ui,sans-serif;fill:var(--soft)}\n"
    ".f{cursor:pointer}.f rect{stroke:var(--edge);stroke-width:1}.f:hover rect{stroke:var(--fg)}.f text{pointer-events:none}\n"
    "#all{fill:var(--bg)}.key{cursor:default}\n"
    ".n rect,rect.n{fill:var(--n)}.r0 rect,rect.r0{fill:var(--r0)}.r1 rect{fill:var(--r1)}.r2 rect{fill:var(--r2)}\n"
    ".w0 rect,rect.w0{fill:var(--w0)}.w1 rect{fill:var(--w1)}.w2 rect{fill:var(--w2)}\n"
    ".q0 rect,rect.q0{fill:var(--q0)}.q1 rect{fill:var(--q1)}.q2 rect{fill:var(--q2)}\n"
    ".above{opacity:.55}.gone{display:none}\n";

/* Each frame has its place in data-x and data-w, and its level in data-y. */
static const char script[] =
    "(function(){\n"
    "var frames=[].slice.call(document.querySelectorAll('g.f')),W=%d,M=%d,L=%d;\n"
    "function num(g,a){return parseFloat(g.getAttribute('data-'+a))}\n"
    "function zoom(to){var x0=num(to,'x'),w0=num(to,'w'),y0=num(to,'y');\n"
    "frames.forEach(function(g){var x=num(g,'x'),w=num(g,'w'),y=num(g,'y'),e=w0*1e-6;\n"
    "var above=y<y0&&x<=x0+e&&x+w>=x0+w0-e,inside=y>=y0&&x>=x0-e&&x+w<=x0+w0+e;\n"
    "g.classList.toggle('gone',!above&&!inside);g.classList.toggle('above',above);\n"
    "if(!above&&!inside)return;\n"
    "var px=above?M:M+(x-x0)/w0*W,pw=above?W:w/w0*W,r=g.querySelector('rect'),t=g.querySelector('text');\n"
    "r.setAttribute('x',px);r.setAttribute('width',pw);t.setAttribute('x',px+4);\n"
    "var name=g.getAttribute('data-name'),n=Math.floor((pw-8)/L);\n"
    "t.textContent=n<3?'':name.length<=n?name:name.slice(0,n-1)+'\\u2026';});}\n"
    "frames.forEach(function(g){g.addEventListener('click',function(){zoom(g)})});\n"
    "document.getElementById('all').addEventListener('click',function(){zoom(frames[0])});\n"
    "})();\n";

static unsigned shade(const char *name)
{
	unsigned h = 5381;
	for (; *name; name++)
		h = h * 33 + (unsigned char)*name;
	return h % 3;
}

static void class(FILE *f, const Node *n)
{
	static const char letters[] = {[DoingRuns] = 'r', [DoingWaits] = 'w', [DoingQueues] = 'q'};
	if (n->doing == DoingNothing)
		putc('n', f);
	else
		fprintf(f, "%c%u", letters[n->doing], shade(n->name));
}

/* As much of the name as has room. */
static void label(FILE *f, const char *name, double width)
{
	char part[256];
	int n = (int)((width - 8) / LETTER);
	if (n < 3)
		return;
	if (strlen(name) <= (size_t)n) {
		escape(f, name);
		return;
	}
	snprintf(part, sizeof part, "%.*s", n - 1, name);
	escape(f, part);
	fputs("&#8230;", f);
}

static double scaleof(const Node *root)
{
	return root->total > 0 ? (WIDTH - 2 * MARGIN) / root->total : 0;
}

static int depth(const Node *n, double scale)
{
	int most = 0;
	for (const Node *c = n->child; c; c = c->next)
		if (c->total * scale >= narrowest) {
			int d = depth(c, scale);
			most = d > most ? d : most;
		}
	return most + 1;
}

static void draw(FILE *f, const Node *n, const Node *root, double x, int level)
{
	double scale = scaleof(root), width = n->total * scale;
	char text[32];
	if (width < narrowest)
		return;
	fputs("<g class=\"f ", f);
	class(f, n);
	fprintf(f, "\" data-x=\"%.4f\" data-w=\"%.4f\" data-y=\"%d\" data-name=\"", x, width,
		level);
	escape(f, n->name);
	fputs("\"><title>", f);
	escape(f, n->name);
	fprintf(
	    f,
	    ": %s, %.2f %%</title><rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\"/><text x=\"%.2f\" y=\"%d\">",
	    shortly(n->total, text, sizeof text), 100 * n->total / root->total, MARGIN + x,
	    TOP + level * ROW, width, ROW, MARGIN + x + 4, TOP + level * ROW + 13);
	label(f, n->name, width);
	fputs("</text></g>\n", f);
	for (const Node *c = n->child; c; c = c->next) {
		draw(f, c, root, x, level + 1);
		x += c->total * scale;
	}
}

static void key(FILE *f, int x, const char *class, const char *text)
{
	fprintf(
	    f,
	    "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" rx=\"2\"/><text class=\"soft\" x=\"%d\" y=\"%d\">%s</text>\n",
	    class, x, 17, x + 17, 27, text);
}

void writeflame(FILE *f, const Node *root, const Title *title)
{
	int height = TOP + depth(root, scaleof(root)) * ROW + BOTTOM;
	fprintf(
	    f,
	    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" style=\"width:100%%;height:auto\">\n<title>",
	    WIDTH, height);
	escape(f, title->text);
	fprintf(f, "</title>\n<style>\n%s</style>\n", style);
	fprintf(f, "<rect id=\"all\" x=\"0\" y=\"0\" width=\"%d\" height=\"%d\"/>\n", WIDTH,
		height);
	fprintf(f, "<text class=\"title\" x=\"%d\" y=\"28\">", MARGIN);
	escape(f, title->text);
	fprintf(f, "</text>\n<text class=\"soft\" x=\"%d\" y=\"47\">", MARGIN);
	escape(f, title->detail);
	fputs(". Click a frame to zoom, the background to come back.</text>\n", f);
	key(f, WIDTH - 310, "r0", "running");
	key(f, WIDTH - 225, "q0", "in a run queue");
	key(f, WIDTH - 100, "w0", "waiting");
	draw(f, root, root, 0, 0);
	fputs("<script><![CDATA[\n", f);
	fprintf(f, script, WIDTH - 2 * MARGIN, MARGIN, LETTER);
	fputs("]]></script>\n</svg>\n", f);
}

/* --- folded stacks ------------------------------------------------------------------------------------ */

typedef struct Chain {
	const Node *node;
	const struct Chain *up;
} Chain;

static void foldedname(FILE *f, const Chain *c)
{
	if (c->up) {
		foldedname(f, c->up);
		putc(';', f);
	}
	for (const char *s = c->node->name; *s; s++)
		putc(*s == ';' ? ':' : *s, f);
}

static void fold(FILE *f, const Node *n, const Chain *up)
{
	Chain here = {n, up};
	if (n->self >= 500) {
		foldedname(f, &here);
		fprintf(f, " %.0f\n", n->self / 1e3);
	}
	for (const Node *c = n->child; c; c = c->next)
		fold(f, c, &here);
}

void writefolded(FILE *f, const Node *root)
{
	for (const Node *c = root->child; c; c = c->next)
		fold(f, c, NULL);
}
