// A click on a column's name orders the table by it, a second one turns the order round.
for (const button of document.querySelectorAll("#index thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const column = head.cellIndex;
    const body = document.querySelector("#index tbody");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = x.localeCompare(y, "en", { numeric: false });
      const numbers = Number(x) - Number(y);
      return (Number.isNaN(numbers) ? order : numbers) * (up ? 1 : -1);
    });
    body.append(...rows);
  });
}
