"""A table as LaTeX, in the layout of the paper."""

from .markdown import PAPER, SHOWN, has_paper, paper_cells, percent, protocol_note
from .results import Results
from .sensors import title_of

_SPECIAL = {
    '\\': r'\textbackslash{}',
    '&': r'\&',
    '%': r'\%',
    '$': r'\$',
    '#': r'\#',
    '_': r'\_',
    '{': r'\{',
    '}': r'\}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '±': r'$\pm$',
}


def escape(text: str) -> str:
    """Write a text so that LaTeX prints it."""
    return ''.join(_SPECIAL.get(letter, letter) for letter in text)


def latex(results: Results) -> str:
    """Write a table for LaTeX, with the packages booktabs and graphicx."""
    table = results.table
    printed = has_paper(results)
    width = (2 if printed else 1) * len(SHOWN)
    columns = width * len(table.targets)
    groups, rules = [], []
    for place, target in enumerate(table.targets):
        start = 2 + place * width
        groups.append(rf'\multicolumn{{{width}}}{{c}}{{{title_of(target)}}}')
        rules.append(rf'\cmidrule(lr){{{start}-{start + width - 1}}}')
    heads = [
        h
        for _ in table.targets
        for name, _ in SHOWN
        for h in (name, 'paper')[: 1 + printed]
    ]
    lines = [
        '% needs \\usepackage{booktabs,graphicx}',
        r'\begin{table}',
        r'\centering',
        rf'\caption{{{escape(_caption(results))}}}',
        r'\resizebox{\linewidth}{!}{%',
        rf'\begin{{tabular}}{{l{"r" * columns}}}',
        r'\toprule',
        f'& {" & ".join(groups)} \\\\',
        ' '.join(rules),
        f'& {" & ".join(heads)} \\\\',
        r'\midrule',
    ]
    ruled = False
    for row in table.rows:
        if row.is_control and not ruled:
            ruled = True
            lines.append(r'\midrule')
        cells = [row.title, *paper_cells(results, row)]
        lines.append(f'{" & ".join(map(escape, cells))} \\\\')
    floors = [
        text
        for target in table.targets
        for _, score in SHOWN
        for text in (percent(results.floor.get(target, {}).get(score)), '')[
            : 1 + printed
        ]
    ]
    lines += [
        r'\midrule',
        f'{" & ".join(["Class frequencies", *floors])} \\\\',
        r'\bottomrule',
        r'\end{tabular}}',
        r'\end{table}',
    ]
    return '\n'.join(lines) + '\n'


def _caption(results: Results) -> str:
    about = f'{results.preset.about} ' if results.preset.about else ''
    title = results.table.title
    columns = f' Columns "paper": {PAPER}.' if has_paper(results) else ''
    return f'{title}. {about}{protocol_note(results)}{columns}'
